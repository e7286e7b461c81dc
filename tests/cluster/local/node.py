"""Configuration and command lines of one node: containerd, kubelet, kube-proxy and our own agent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .layout import DNS_ADDRESS, PAUSE_IMAGE, POD_CIDR, RESERVED, Node

CNI_BINARIES = "/usr/lib/cni"  # where Debian's containernetworking-plugins puts them


def cni_config(node: Node) -> str:
    """`ptp`, not `bridge`: every packet of a pod is then routed, so the NetworkPolicy table sees all of them."""
    ipam = {
        "type": "host-local",
        "dataDir": f"{node.run}/ipam",
        "ranges": [[{"subnet": node.pod_cidr}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    return json.dumps(
        {
            "cniVersion": "0.4.0",
            "name": "tenure",
            "plugins": [
                {"type": "ptp", "ipMasq": False, "mtu": 1400, "ipam": ipam},
                {"type": "portmap", "capabilities": {"portMappings": True}, "snat": True},
            ],
        },
        indent=1,
    )


def containerd_config(node: Node, runc: Path) -> str:
    """restrict_oom_score_adj: root in a container may lack CAP_SYS_RESOURCE, and runc then cannot lower the score.
    netns_mounts_under_state_dir: network namespaces go away with our own folder, and /run/netns is left alone."""
    runtime = 'plugins."io.containerd.cri.v1.runtime"'
    return f"""version = 3
root = "{node.directory}/containerd"
state = "{node.run}/containerd"
[grpc]
  address = "{node.socket}"
[plugins."io.containerd.internal.v1.opt"]
  path = "{node.directory}/containerd-opt"
[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = "{PAUSE_IMAGE}"
[{runtime}]
  netns_mounts_under_state_dir = true
  restrict_oom_score_adj = true
  [{runtime}.cni]
    bin_dirs = ["{CNI_BINARIES}"]
    conf_dir = "{node.directory}/cni"
  [{runtime}.containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [{runtime}.containerd.runtimes.runc.options]
      BinaryName = "{runc}"
      Root = "{node.run}/runc"
      SystemdCgroup = false
"""


def resolver() -> str:
    """The real name servers: a stub on the loopback address would make CoreDNS ask itself."""
    systemd = Path("/run/systemd/resolve/resolv.conf")
    return str(systemd) if systemd.exists() else "/etc/resolv.conf"


def kubelet_config(node: Node) -> str:
    pki = node.state.pki
    config: dict[str, Any] = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "failCgroupV1": False,
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": node.cgroup,
        "containerRuntimeEndpoint": f"unix://{node.socket}",
        "podLogsDir": f"{node.directory}/pod-logs",
        "volumePluginDir": f"{node.directory}/volume-plugins",
        "tlsCertFile": f"{pki}/{node.name}.crt",
        "tlsPrivateKeyFile": f"{pki}/{node.name}.key",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": f"{pki}/ca.crt"},
        },
        "authorization": {"mode": "Webhook"},
        "address": node.address,
        "healthzBindAddress": node.address,
        "readOnlyPort": 0,
        "clusterDomain": "cluster.local",
        "clusterDNS": [DNS_ADDRESS],
        "resolvConf": resolver(),
        "failSwapOn": False,
        "makeIPTablesUtilChains": False,  # it would leave KUBE-* chains behind
        "evictionHard": {"memory.available": "200Mi", "nodefs.available": "2%", "imagefs.available": "2%"},
        "imageGCHighThresholdPercent": 100,  # there is no registry to pull a collected image from
        "imageGCLowThresholdPercent": 99,
        "serializeImagePulls": False,
        "maxPods": 250,  # as many as a /24 holds
        "kubeAPIQPS": 200,
        "kubeAPIBurst": 400,
        "registerWithTaints": [RESERVED] if node.reserved else [],
        "nodeLeaseDurationSeconds": 20,  # renewed every 5 s, so that a death is noticed soon: see control_plane.py
        "syncFrequency": "10s",  # changed secrets and config maps reach their pods sooner
    }
    return json.dumps(config, indent=1)


def kube_proxy_config(node: Node) -> str:
    config: dict[str, Any] = {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "clusterCIDR": POD_CIDR,
        "hostnameOverride": node.name,
        "clientConnection": {"kubeconfig": str(node.state.kubeconfigs / "proxy")},
        # zero: the sysctls of the machine are not kube-proxy's to set
        "conntrack": {"maxPerCore": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        "healthzBindAddress": f"{node.address}:10256",
        "metricsBindAddress": f"{node.address}:10249",
    }
    return json.dumps(config, indent=1)


def containerd(node: Node) -> list[str | Path]:
    return [*node.enter, "containerd", "--config", node.directory / "containerd.toml"]


def kubelet(node: Node) -> list[str | Path]:
    return [
        *node.enter,
        "kubelet",
        f"--config={node.directory}/kubelet.json",
        f"--kubeconfig={node.kubeconfig}",
        f"--hostname-override={node.name}",
        f"--node-ip={node.address}",
        f"--root-dir={node.directory}/kubelet",
        f"--cert-dir={node.directory}/kubelet/pki",
    ]


def kube_proxy(node: Node) -> list[str | Path]:
    return [*node.enter, "kube-proxy", f"--config={node.directory}/kube-proxy.json"]


def agent(node: Node) -> list[str | Path]:
    return [*node.enter, "kube", "agent", node.state.kubeconfigs / "agent", node.name, node.volumes]
