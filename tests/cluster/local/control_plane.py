"""Command lines of the control plane, and why each unusual flag is there."""

from __future__ import annotations

from pathlib import Path

from .layout import HOST_ADDRESS, SERVICE_CIDR, State

ETCD_URL = "http://127.0.0.1:2379"
ISSUER = "https://kubernetes.default.svc.cluster.local"
DEAD_AFTER = "--node-monitor-grace-period=25s"  # by default 50 s; five renewals of a lease may be late before it
CLIENT_RATE = ["--kube-api-qps=300", "--kube-api-burst=600"]  # fifty pods at once are not to be throttled


def etcd(state: State) -> list[str | Path]:
    return [
        "etcd",
        f"--data-dir={state.etcd}",
        f"--listen-client-urls={ETCD_URL}",
        f"--advertise-client-urls={ETCD_URL}",
        "--listen-peer-urls=http://127.0.0.1:2380",
        "--unsafe-no-fsync",  # the data is worth nothing after `down`
        "--log-level=warn",
    ]


def api_server(state: State) -> list[str | Path]:
    pki = state.pki
    return [
        "kube-apiserver",
        f"--etcd-servers={ETCD_URL}",
        f"--advertise-address={HOST_ADDRESS}",
        "--secure-port=6443",
        f"--tls-cert-file={pki}/apiserver.crt",
        f"--tls-private-key-file={pki}/apiserver.key",
        f"--client-ca-file={pki}/ca.crt",
        f"--kubelet-client-certificate={pki}/apiserver-kubelet.crt",
        f"--kubelet-client-key={pki}/apiserver-kubelet.key",
        "--kubelet-preferred-address-types=InternalIP",
        f"--service-account-issuer={ISSUER}",
        f"--service-account-key-file={pki}/sa.pub",
        f"--service-account-signing-key-file={pki}/sa.key",
        f"--requestheader-client-ca-file={pki}/front-proxy-ca.crt",
        "--requestheader-allowed-names=front-proxy-client",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-username-headers=X-Remote-User",
        f"--proxy-client-cert-file={pki}/front-proxy.crt",
        f"--proxy-client-key-file={pki}/front-proxy.key",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged=true",
        f"--service-cluster-ip-range={SERVICE_CIDR}",
        "--profiling=false",
        f"--audit-policy-file={state.root}/audit-policy.json",
        f"--audit-log-path={state.audit_log}",
        "--audit-log-maxsize=2000",  # one file: a reader that counts must not lose its place to a rotation
    ]


def controller_manager(state: State) -> list[str | Path]:
    config = state.kubeconfigs / "controller-manager"
    return [
        "kube-controller-manager",
        f"--kubeconfig={config}",
        f"--authentication-kubeconfig={config}",
        f"--authorization-kubeconfig={config}",
        "--leader-elect=false",  # there is one of each, and a lease would have to run out after a restart
        "--use-service-account-credentials",
        f"--service-account-private-key-file={state.pki}/sa.key",
        f"--root-ca-file={state.pki}/ca.crt",
        DEAD_AFTER,
        f"--cluster-signing-cert-file={state.pki}/ca.crt",
        f"--cluster-signing-key-file={state.pki}/ca.key",
        f"--service-cluster-ip-range={SERVICE_CIDR}",
        "--profiling=false",
        *CLIENT_RATE,
    ]


def scheduler(state: State) -> list[str | Path]:
    config = state.kubeconfigs / "scheduler"
    return [
        "kube-scheduler",
        f"--kubeconfig={config}",
        f"--authentication-kubeconfig={config}",
        f"--authorization-kubeconfig={config}",
        "--leader-elect=false",
        "--profiling=false",
        *CLIENT_RATE,
    ]
