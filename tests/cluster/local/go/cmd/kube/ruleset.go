package main

import (
	"fmt"
	"net/netip"
	"strings"

	v1 "k8s.io/api/core/v1"
	nv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
)

const table = "inet tenure-netpol"

// world is what the rules of one state of the cluster are written from.
type world struct {
	pods       []*v1.Pod
	namespaces map[string]map[string]string // the labels of each
}

// ruleset writes the whole nftables table for the pods of node.
func ruleset(node string, pods []*v1.Pod, namespaces []*v1.Namespace, policies []*nv1.NetworkPolicy) string {
	w := world{pods: pods, namespaces: map[string]map[string]string{}}
	for _, n := range namespaces {
		w.namespaces[n.Name] = n.Labels
	}
	var chains, ingress, egress strings.Builder
	for _, pod := range pods {
		if pod.Spec.NodeName != node || !hasAddress(pod) {
			continue
		}
		in, inIsolated, out, outIsolated := w.podRules(pod, policies)
		if inIsolated {
			writeChain(&chains, &ingress, "in", pod, in)
		}
		if outIsolated {
			writeChain(&chains, &egress, "eg", pod, out)
		}
	}
	forward, input := "", ""
	if egress.Len() > 0 {
		jump := "  ip saddr vmap {" + egress.String() + " }\n"
		forward += jump
		input += jump // a pod that speaks to its own node
	}
	if ingress.Len() > 0 {
		forward += "  ip daddr vmap {" + ingress.String() + " }\n"
	}
	return "table " + table + "\ndelete table " + table + "\ntable " + table + " {\n" +
		chains.String() + baseChain("forward", forward) + baseChain("input", input) + "}\n"
}

func baseChain(hook, rules string) string {
	return " chain " + hook + " {\n  type filter hook " + hook + " priority filter + 5; policy accept;\n" +
		"  ct state established,related accept\n" + rules + " }\n"
}

// writeChain adds the chain of one isolated pod, and the entry that leads its packets there.
func writeChain(chains, verdicts *strings.Builder, direction string, pod *v1.Pod, rules []string) {
	name := direction + "-" + strings.ReplaceAll(pod.Status.PodIP, ".", "-")
	fmt.Fprintf(chains, " chain %s {\n", name)
	for _, rule := range rules {
		fmt.Fprintf(chains, "  %s return\n", rule)
	}
	fmt.Fprintf(chains, "  counter drop\n }\n")
	fmt.Fprintf(verdicts, " %s : jump %s,", pod.Status.PodIP, name)
}

// podRules gives what may come in and go out of pod, and whether any policy isolates it in that direction.
func (w world) podRules(pod *v1.Pod, policies []*nv1.NetworkPolicy) (in []string, inIsolated bool, out []string, outIsolated bool) {
	for _, policy := range policies {
		if policy.Namespace != pod.Namespace || !matches(&policy.Spec.PodSelector, pod.Labels) {
			continue
		}
		for _, kind := range policy.Spec.PolicyTypes {
			if kind == nv1.PolicyTypeIngress {
				inIsolated = true
				for _, rule := range policy.Spec.Ingress {
					in = append(in, w.rules("saddr", policy.Namespace, rule.From, rule.Ports, pod)...)
				}
			} else {
				outIsolated = true
				for _, rule := range policy.Spec.Egress {
					out = append(out, w.rules("daddr", policy.Namespace, rule.To, rule.Ports, nil)...)
				}
			}
		}
	}
	return in, inIsolated, out, outIsolated
}

// peer is one side that a rule admits: an nft match ("" for everyone) and the pods it stands for.
type peer struct {
	match string
	pods  []*v1.Pod
}

// rules gives one nft match per peer and port. For ingress, target is the pod whose named ports count;
// for egress it is nil, and the named ports of the peers count.
func (w world) rules(address, namespace string, from []nv1.NetworkPolicyPeer, ports []nv1.NetworkPolicyPort, target *v1.Pod) []string {
	var out []string
	for _, p := range w.peers(address, namespace, from) {
		if len(ports) == 0 {
			out = append(out, p.match)
		}
		for _, port := range ports {
			out = append(out, w.portRules(p, port, target)...)
		}
	}
	return out
}

func (w world) peers(address, namespace string, from []nv1.NetworkPolicyPeer) []peer {
	if len(from) == 0 {
		return []peer{{}}
	}
	var peers []peer
	for _, f := range from {
		if f.IPBlock != nil {
			if prefix, err := netip.ParsePrefix(f.IPBlock.CIDR); err == nil && prefix.Addr().Is4() {
				peers = append(peers, peer{match: blockMatch(address, f.IPBlock)})
			}
			continue
		}
		var addresses []string
		var selected []*v1.Pod
		for _, pod := range w.pods {
			if hasAddress(pod) && w.selects(f, namespace, pod) {
				addresses, selected = append(addresses, pod.Status.PodIP), append(selected, pod)
			}
		}
		if len(addresses) > 0 {
			peers = append(peers, peer{"ip " + address + " { " + strings.Join(addresses, ", ") + " }", selected})
		}
	}
	return peers
}

func blockMatch(address string, block *nv1.IPBlock) string {
	match := "ip " + address + " " + block.CIDR
	if len(block.Except) > 0 {
		match += " ip " + address + " != { " + strings.Join(block.Except, ", ") + " }"
	}
	return match
}

func (w world) selects(f nv1.NetworkPolicyPeer, namespace string, pod *v1.Pod) bool {
	if f.NamespaceSelector == nil {
		if pod.Namespace != namespace {
			return false
		}
	} else if !matches(f.NamespaceSelector, w.namespaces[pod.Namespace]) {
		return false
	}
	return f.PodSelector == nil || matches(f.PodSelector, pod.Labels)
}

func (w world) portRules(p peer, port nv1.NetworkPolicyPort, target *v1.Pod) []string {
	protocol := "tcp"
	if port.Protocol != nil {
		protocol = strings.ToLower(string(*port.Protocol))
	}
	switch {
	case port.Port == nil:
		return []string{p.match + " meta l4proto " + protocol}
	case port.Port.Type == intstr.Int && port.EndPort != nil:
		return []string{fmt.Sprintf("%s %s dport %d-%d", p.match, protocol, port.Port.IntVal, *port.EndPort)}
	case port.Port.Type == intstr.Int:
		return []string{fmt.Sprintf("%s %s dport %d", p.match, protocol, port.Port.IntVal)}
	}
	var out []string
	if target != nil {
		for _, number := range namedPorts(target, port.Port.StrVal, protocol) {
			out = append(out, fmt.Sprintf("%s %s dport %d", p.match, protocol, number))
		}
		return out
	}
	of := p.pods
	if p.match == "" {
		of = w.pods
	}
	for _, pod := range of {
		for _, number := range namedPorts(pod, port.Port.StrVal, protocol) {
			if hasAddress(pod) {
				out = append(out, fmt.Sprintf("ip daddr %s %s dport %d", pod.Status.PodIP, protocol, number))
			}
		}
	}
	return out
}

func namedPorts(pod *v1.Pod, name, protocol string) (numbers []int32) {
	for _, container := range append(append([]v1.Container{}, pod.Spec.InitContainers...), pod.Spec.Containers...) {
		for _, port := range container.Ports {
			if port.Name == name && strings.EqualFold(string(port.Protocol), protocol) {
				numbers = append(numbers, port.ContainerPort)
			}
		}
	}
	return numbers
}

func hasAddress(pod *v1.Pod) bool {
	return !pod.Spec.HostNetwork && pod.Status.PodIP != "" && pod.Status.Phase != v1.PodSucceeded && pod.Status.Phase != v1.PodFailed
}

func matches(selector *metav1.LabelSelector, l map[string]string) bool {
	s, err := metav1.LabelSelectorAsSelector(selector)
	return err == nil && s.Matches(labels.Set(l))
}
