"""The components' configuration files and the objects that the cluster starts with, as plain values.

JSON is written where YAML is read.
"""

import json
from pathlib import Path
from typing import Any

from devcluster.network import BRIDGE, DNS_SERVICE_ADDRESS, NODE_ADDRESS, POD_NETWORK

Manifest = dict[str, Any]

NODE = "node1"
DOMAIN = "cluster.local"
PAUSE_IMAGE = "localhost/cryomamba-pause:1"
GPUS = "2"
CNI_PLUGINS = "/usr/lib/cni"


def cni(leases: Path) -> str:
    """The pods' network: a bridge whose gateway is the node, without masquerading: pods have no way out."""
    bridge = {
        "type": "bridge",
        "bridge": BRIDGE,
        "isGateway": True,
        "isDefaultGateway": True,
        "hairpinMode": True,
        "ipam": {
            "type": "host-local",
            "dataDir": str(leases),
            "ranges": [[{"subnet": str(POD_NETWORK), "gateway": NODE_ADDRESS}]],
        },
    }
    return json.dumps({"cniVersion": "1.0.0", "name": "cryomamba", "plugins": [bridge]}, indent=1)


def containerd(root: Path, folder: Path, socket: Path, networks: Path) -> str:
    """Containerd 1.6 and its CRI plugin, with everything that can be in the cluster's folder there but the images.

    Args:
        root: Where images go.
        folder: Where its other data go.
        socket: Where it listens.
        networks: Folder of the CNI configuration.
    """
    return f"""version = 2
root = "{root}"
state = "{folder}/state"
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs"]
[grpc]
  address = "{socket}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  netns_mounts_under_state_dir = true
  # Without CAP_SYS_RESOURCE runc dies over a negative value with "can't get final child's PID from pipe: EOF".
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{CNI_PLUGINS}"
    conf_dir = "{networks}"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      Root = "{folder}/runc"
"""


def kubelet(folder: Path, socket: Path, certificates: Path, port: int, cgroup: str) -> Manifest:
    """Kubelet's configuration file.

    Args:
        folder: Where its data go.
        socket: containerd's.
        certificates: Folder of the authority and the servers' certificate.
        port: Where it listens, on the node's address.
        cgroup: The cgroup of all pods.
    """
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": NODE_ADDRESS,
        "port": port,
        "healthzPort": 0,
        "tlsCertFile": f"{certificates}/server.crt",
        "tlsPrivateKeyFile": f"{certificates}/server.key",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": f"{certificates}/ca.crt"},
        },
        "authorization": {"mode": "Webhook"},
        "containerRuntimeEndpoint": f"unix://{socket}",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{cgroup}",
        "failCgroupV1": False,
        "failSwapOn": False,
        "clusterDomain": DOMAIN,
        "clusterDNS": [DNS_SERVICE_ADDRESS],
        # Pods see the cluster's names and none of the machine's.
        "resolvConf": "",
        "podLogsDir": f"{folder}/pod-logs",
        "volumePluginDir": f"{folder}/volume-plugins",
        # kube-proxy has its own; kubelet's would outlive it.
        "makeIPTablesUtilChains": False,
        # Images that were loaded by hand cannot be pulled again.
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {"nodefs.available": "1%", "imagefs.available": "1%", "memory.available": "100Mi"},
        # A node that is lost should be noticed within a test's patience: see --node-monitor-grace-period.
        "nodeStatusUpdateFrequency": "4s",
        "nodeLeaseDurationSeconds": 12,
    }


def proxy(kubeconfig: Path, metrics_port: int, health_port: int) -> Manifest:
    """kube-proxy's configuration file."""
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "bindAddress": NODE_ADDRESS,
        "healthzBindAddress": f"{NODE_ADDRESS}:{health_port}",
        "metricsBindAddress": f"{NODE_ADDRESS}:{metrics_port}",
        "clientConnection": {"kubeconfig": str(kubeconfig)},
        "clusterCIDR": str(POD_NETWORK),
        "hostnameOverride": NODE,
        "mode": "iptables",
        "nodePortAddresses": [f"{NODE_ADDRESS}/32"],
        # A pod that calls a service whose pod is on the same bridge gets the answer past the node, and drops it, unless
        # the node is the caller. It is one kernel module less to need (br_netfilter).
        "iptables": {"masqueradeAll": True, "localhostNodePorts": False},
        # Leave the machine's settings alone.
        "conntrack": {"maxPerCore": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
    }


def corefile(kubeconfig: Path, server: str, port: int, ready_port: int) -> str:
    """CoreDNS for the cluster's names; every other name does not exist, at once."""
    return f"""{DOMAIN}:{port} in-addr.arpa:{port} {{
  bind {NODE_ADDRESS}
  errors
  ready {NODE_ADDRESS}:{ready_port}
  kubernetes {DOMAIN} in-addr.arpa {{
    endpoint {server}
    kubeconfig {kubeconfig}
    ttl 1
  }}
}}
.:{port} {{
  bind {NODE_ADDRESS}
  errors
  template ANY ANY {{
    rcode NXDOMAIN
  }}
}}
"""


def dns_objects(user: str, port: int) -> dict[str, Manifest]:
    """What CoreDNS may read and the service under which pods find it, by the path to which each is POSTed."""
    rbac, name = "/apis/rbac.authorization.k8s.io/v1", "cryomamba:coredns"
    ports = [("dns", "UDP"), ("dns-tcp", "TCP")]
    return {
        f"{rbac}/clusterroles": {
            "metadata": {"name": name},
            "rules": [
                {
                    "apiGroups": ["", "discovery.k8s.io"],
                    "resources": ["services", "pods", "namespaces", "endpointslices"],
                    "verbs": ["list", "watch"],
                },
            ],
        },
        f"{rbac}/clusterrolebindings": {
            "metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}],
        },
        "/api/v1/namespaces/kube-system/services": {
            "metadata": {"name": "kube-dns"},
            "spec": {
                "clusterIP": DNS_SERVICE_ADDRESS,
                "ports": [{"name": key, "port": 53, "protocol": protocol} for key, protocol in ports],
            },
        },
        "/apis/discovery.k8s.io/v1/namespaces/kube-system/endpointslices": {
            "metadata": {"name": "kube-dns", "labels": {"kubernetes.io/service-name": "kube-dns"}},
            "addressType": "IPv4",
            "endpoints": [{"addresses": [NODE_ADDRESS], "conditions": {"ready": True}}],
            "ports": [{"name": key, "port": port, "protocol": protocol} for key, protocol in ports],
        },
    }


def gpu_patch() -> list[dict[str, str]]:
    """The JSON patch of a node's status that gives it the made-up GPUs."""
    return [
        {"op": "add", "path": f"/status/{place}/nvidia.com~1gpu", "value": GPUS}
        for place in ("capacity", "allocatable")
    ]
