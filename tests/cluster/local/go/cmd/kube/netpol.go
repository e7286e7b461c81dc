package main

import (
	"context"
	"log"
	"os/exec"
	"sort"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	nv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"
)

// runNetworkPolicies enforces NetworkPolicies (networking.k8s.io/v1, IPv4) for the pods of node, in one
// nftables table of the network namespace that it runs in. Every change rebuilds the table in one
// transaction. It needs a routed pod network (CNI "ptp"): every packet to or from a pod then passes
// forward or input. Traffic from the node itself to its pods is always allowed, as the API says.
func runNetworkPolicies(ctx context.Context, factory informers.SharedInformerFactory, node string) error {
	pods, namespaces, policies := factory.Core().V1().Pods(), factory.Core().V1().Namespaces(), factory.Networking().V1().NetworkPolicies()
	changed := make(chan struct{}, 1)
	notify := func() {
		select {
		case changed <- struct{}{}:
		default:
		}
	}
	handler := cache.ResourceEventHandlerFuncs{
		AddFunc: func(any) { notify() }, UpdateFunc: func(any, any) { notify() }, DeleteFunc: func(any) { notify() },
	}
	for _, informer := range []cache.SharedIndexInformer{pods.Informer(), namespaces.Informer(), policies.Informer()} {
		if _, err := informer.AddEventHandler(handler); err != nil {
			return err
		}
	}
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())
	notify()
	applied := ""
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
		wanted, err := wantedRules(node, pods.Lister().List, namespaces.Lister().List, policies.Lister().List)
		if err != nil {
			return err
		}
		if wanted != applied {
			if err := applyRules(wanted); err != nil {
				log.Printf("netpol: %v\n%s", err, wanted)
				time.Sleep(time.Second)
				notify()
				continue
			}
			applied = wanted
		}
		time.Sleep(20 * time.Millisecond) // gathers what comes together
	}
}

type lister[T any] func(labels.Selector) ([]T, error)

func wantedRules(node string, listPods lister[*v1.Pod], listNamespaces lister[*v1.Namespace], listPolicies lister[*nv1.NetworkPolicy]) (string, error) {
	pods, err := listPods(labels.Everything())
	if err != nil {
		return "", err
	}
	namespaces, err := listNamespaces(labels.Everything())
	if err != nil {
		return "", err
	}
	policies, err := listPolicies(labels.Everything())
	if err != nil {
		return "", err
	}
	// a stable order: equal states must give equal text, or the table is rebuilt for nothing
	sort.Slice(pods, func(i, j int) bool { return pods[i].UID < pods[j].UID })
	sort.Slice(policies, func(i, j int) bool { return policies[i].UID < policies[j].UID })
	return ruleset(node, pods, namespaces, policies), nil
}

func applyRules(rules string) error {
	command := exec.Command("nft", "-f", "-")
	command.Stdin = strings.NewReader(rules)
	out, err := command.CombinedOutput()
	if err != nil {
		log.Printf("nft: %s", out)
	}
	return err
}
