from pathlib import Path

import pytest

from devcluster import processes, running
from devcluster.components import Component
from devcluster.errors import ClusterError
from devcluster.state import Layout, Record


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path)
    layout.logs.mkdir()
    return layout


def start(component: Component, layout: Layout) -> Record:
    record = Record("local")
    running.start(component, layout, record)
    return record


def test_a_started_component_is_on_record_on_disk(layout: Layout) -> None:
    component = Component("etcd", ("sleep", "600"), lambda: True)

    record = start(component, layout)

    running.wait_for(component, layout, record)
    assert Record.read(layout.record) == record
    assert running.serves(component, record)
    processes.stop(record.processes["etcd"], 10)
    assert not running.serves(component, record)


def test_a_component_that_ends_is_named_with_its_last_words(layout: Layout) -> None:
    component = Component("kubelet", ("sh", "-c", "echo starting; echo no cgroup; exit 1"), lambda: False)
    record = start(component, layout)

    with pytest.raises(ClusterError, match=r"(?s)kubelet ended.*kubelet\.log:\nstarting\nno cgroup"):
        running.wait_for(component, layout, record)

    processes.stop(record.processes["kubelet"], 10)


def test_a_component_that_takes_too_long_is_named(layout: Layout) -> None:
    def refused() -> bool:
        raise ConnectionRefusedError

    component = Component("coredns", ("sleep", "600"), refused, seconds=0.2)
    record = start(component, layout)

    with pytest.raises(ClusterError, match="coredns did not come up within 0 s"):
        running.wait_for(component, layout, record)

    processes.stop(record.processes["coredns"], 10)


def test_listeners_get_different_ports() -> None:
    record = Record("local", address="127.0.0.1")

    running.give_ports(record, ("etcd", "kube-apiserver", "kubelet"))

    assert len(set(record.ports.values())) == 3
    assert running.server_url(record) == f"https://127.0.0.1:{record.ports['kube-apiserver']}"
