"""Talks to a control plane through gRPC reflection alone: no generated code.

    pip install grpcio grpcio-reflection
    leaf demo --for 60s --kill 0 &       # prints the address of a control plane
    python control.py 127.0.0.1:PORT

Lists the super-nodes, follows their load, explains how the strongest was elected,
and drains the one with the fewest leaves.
"""

import sys
import time

import grpc
from google.protobuf import descriptor_pool, message_factory
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

SERVICE = "canopy.control.v1.Control"


class Control:
    """Calls of the service, by their names."""

    def __init__(self, addr):
        self.channel = grpc.insecure_channel(addr)
        pool = descriptor_pool.DescriptorPool(
            ProtoReflectionDescriptorDatabase(self.channel)
        )
        self.service = pool.FindServiceByName(SERVICE)

    def __getattr__(self, name):
        method = self.service.methods_by_name[name]
        request = message_factory.GetMessageClass(method.input_type)
        reply = message_factory.GetMessageClass(method.output_type)
        kind = self.channel.unary_stream if method.server_streaming else self.channel.unary_unary
        call = kind(
            f"/{SERVICE}/{name}",
            request_serializer=request.SerializeToString,
            response_deserializer=reply.FromString,
        )
        return lambda timeout=30, **fields: call(request(**fields), timeout=timeout)


def main(addr):
    control = Control(addr)
    nodes = control.ListSuperNodes(order_by="capacity", descending=True).super_nodes
    for node in nodes:
        figures = node.figures
        print(
            f"{node.node_id[:10]} {node.state:8} {node.capacity_bps / 1e6:7.1f} Mbit/s "
            f"{figures.operations_per_s:8.1f} ops/s {figures.records:6} records"
        )

    for sample, _ in zip(control.WatchLoad(interval_ms=500), range(3)):
        done = sum(node.operations_per_s for node in sample.super_nodes)
        print(f"load: {done:.0f} operations a second at {len(sample.super_nodes)} super-nodes")

    serving = [node for node in nodes if node.state == "serving"]
    why = control.ExplainElection(node_id=serving[0].node_id)
    for election in why.elections:
        for one in election.contenders:
            print(f"term {election.term}: {one.node_id[:10]} {one.why}")
    for mandate in why.mandates:
        if mandate.node_id == serving[0].node_id:
            # `pass` is a word of Python's own.
            passed = all(getattr(criterion, "pass") for criterion in mandate.criteria)
            print(f"{len(mandate.ballots)} ballots, all {len(mandate.criteria)} criteria met: {passed}")

    weakest = min(serving, key=lambda node: node.figures.leaves)
    host = Control(weakest.figures.control)
    began = time.monotonic()
    for progress in host.Drain(node_id=weakest.node_id, caller="control.py", force=True, timeout=120):
        print(f"{progress.phase}: {progress.leaves} leaves, {progress.confirmed} of {progress.records} records")
    print(f"drained {weakest.node_id[:10]} in {time.monotonic() - began:.1f} s")
    # The others hear of it within a moment.
    for sample in control.WatchLoad(interval_ms=500):
        if all(node.node_id != weakest.node_id for node in sample.super_nodes):
            break


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
