import json
import tomllib
from pathlib import Path

from devcluster import configuration
from devcluster.network import NODE_ADDRESS, POD_NETWORK

STATE = Path("/state")
SOCKET = STATE / "containerd.sock"


def test_containerd_keeps_everything_but_images_in_the_cluster_s_folder() -> None:
    config = tomllib.loads(configuration.containerd(Path("/images"), STATE / "containerd", SOCKET, STATE / "cni"))

    cri = config["plugins"]["io.containerd.grpc.v1.cri"]
    assert (config["root"], config["state"]) == ("/images", "/state/containerd/state")
    assert cri["containerd"]["runtimes"]["runc"]["options"]["Root"] == "/state/containerd/runc"
    assert cri["netns_mounts_under_state_dir"] is True
    assert cri["sandbox_image"] == configuration.PAUSE_IMAGE


def test_pods_have_the_node_as_gateway_and_leases_in_the_cluster_s_folder() -> None:
    plugin = json.loads(configuration.cni(STATE / "leases"))["plugins"][0]

    assert plugin["ipam"]["dataDir"] == "/state/leases"
    assert plugin["ipam"]["ranges"] == [[{"subnet": str(POD_NETWORK), "gateway": NODE_ADDRESS}]]
    assert "ipMasq" not in plugin


def test_kubelet_lets_in_nobody_without_a_certificate_or_token() -> None:
    config = configuration.kubelet(STATE, SOCKET, STATE / "pki", 20001, "cryomamba")

    assert config["authentication"]["anonymous"] == {"enabled": False}
    assert config["authorization"] == {"mode": "Webhook"}
    assert (config["address"], config["port"], config["healthzPort"]) == (NODE_ADDRESS, 20001, 0)


def test_kube_proxy_listens_on_the_node_s_address_only() -> None:
    config = configuration.proxy(STATE / "kubeconfig", 20001, 20002)

    assert config["metricsBindAddress"] == f"{NODE_ADDRESS}:20001"
    assert config["healthzBindAddress"] == f"{NODE_ADDRESS}:20002"
    assert config["nodePortAddresses"] == [f"{NODE_ADDRESS}/32"]


def test_coredns_binds_every_zone_to_the_node_s_address() -> None:
    corefile = configuration.corefile(STATE / "kubeconfig", "https://198.19.0.1:20003", 20001, 20002)

    assert corefile.count(":20001 {") == corefile.count(f"bind {NODE_ADDRESS}\n") == 2
    assert f"ready {NODE_ADDRESS}:20002" in corefile


def test_the_dns_service_leads_to_coredns() -> None:
    objects = configuration.dns_objects("cryomamba:coredns", 20001)

    service = objects["/api/v1/namespaces/kube-system/services"]["spec"]
    slice_ = objects["/apis/discovery.k8s.io/v1/namespaces/kube-system/endpointslices"]
    kubelet = configuration.kubelet(STATE, SOCKET, STATE / "pki", 20002, "cryomamba")
    assert [service["clusterIP"]] == kubelet["clusterDNS"]
    assert {port["name"]: port["protocol"] for port in service["ports"]} == {"dns": "UDP", "dns-tcp": "TCP"}
    assert {(port["name"], port["port"]) for port in slice_["ports"]} == {("dns", 20001), ("dns-tcp", 20001)}
    assert slice_["endpoints"][0]["addresses"] == [NODE_ADDRESS]


def test_coredns_may_read_what_it_serves_and_nothing_else() -> None:
    rules = configuration.dns_objects("u", 1)["/apis/rbac.authorization.k8s.io/v1/clusterroles"]["rules"]

    assert {verb for rule in rules for verb in rule["verbs"]} == {"list", "watch"}
    assert not {"secrets", "*"} & {resource for rule in rules for resource in rule["resources"]}


def test_the_node_gets_two_gpus() -> None:
    assert configuration.gpu_patch() == [
        {"op": "add", "path": "/status/capacity/nvidia.com~1gpu", "value": "2"},
        {"op": "add", "path": "/status/allocatable/nvidia.com~1gpu", "value": "2"},
    ]
