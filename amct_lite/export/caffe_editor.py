"""A Caffe network open for editing: layers with their weights, taken out and put in, then written as a pair."""

from collections.abc import Mapping
from typing import Any

from amct_lite.caffe.blobs import trained_blobs
from amct_lite.caffe.inputs import is_input_layer
from amct_lite.caffe.network import CaffeNetwork
from amct_lite.caffe.phases import layers_at_test
from amct_lite.caffe.upgrade import upgrade_layers
from amct_lite.errors import ExportError
from amct_lite.export.caffe_blobs import float_blob
from amct_lite.files.protos import message_class

__all__ = ["CaffeEditor"]


class CaffeEditor:
    """The layers of phase TEST as LayerParameter messages of today's form, each with its blobs.

    Layers that only training uses are left out; those that stay keep names, order, parameters and weights.

    Attributes:
        layers: The messages in running order, Input layers included.
    """

    def __init__(self, network: CaffeNetwork) -> None:
        """Open a network.

        Args:
            network: The network with its weights; it is not changed.
        """
        self._header = _header(network)
        self._bottoms = {layer.name: layer.bottoms for layer in network.layers}
        layers = {layer.name: layer for layer in network.layers}
        stored = {} if network.weights is None else dict(trained_blobs(network.weights, set(layers)))
        self.layers: list[Any] = []
        lines = [None] * (len(network.proto.layer) + len(network.proto.layers))
        for message, _ in layers_at_test(upgrade_layers(network.proto, lines), network.proto.state):
            if message.name in layers:
                # The reader's own message, which may have been brought up to date further than this one.
                message.CopyFrom(layers[message.name].params)
                message.ClearField("blobs")
                message.blobs.extend(stored.get(message.name) or map(float_blob, layers[message.name].blobs))
                self.layers.append(message)
            elif is_input_layer(message) and set(message.top) <= set(network.inputs):
                self.layers.append(message)
        self._add_missing_inputs(network.inputs)
        self._names = {name for layer in self.layers for name in (*layer.bottom, *layer.top)}

    def layer(self, name: str) -> Any:
        """The message of a layer.

        Raises:
            ExportError: There is none of that name.
        """
        return self.layers[self._index(name)]

    def bottom_value(self, name: str, index: int = 0) -> str:
        """The value name of a layer's bottom in the network as read: the same name, the same numbers."""
        return self._bottoms[name][index]

    def new_blob(self, name: str) -> str:
        """A blob name that nothing has yet: the one given, with underscores after it where needed."""
        while name in self._names:
            name += "_"
        self._names.add(name)
        return name

    def new_layer_name(self, name: str) -> str:
        """A layer name that nothing has yet: the one given, with underscores after it where needed."""
        taken = {layer.name for layer in self.layers}
        while name in taken:
            name += "_"
        return name

    def insert_before(self, name: str, message: Any) -> None:
        """Put a layer directly in front of another one."""
        self.layers.insert(self._index(name), message)

    def insert_after(self, name: str, message: Any) -> None:
        """Put a layer directly behind another one."""
        self.layers.insert(self._index(name) + 1, message)

    def take_out(self, name: str) -> None:
        """Remove a layer with one bottom and one top, whose producer then writes the top itself.

        So a blob that others read, or that the network puts out, keeps its name.

        Args:
            name: The layer; nothing else may read the value that it reads.

        Raises:
            ExportError: It reads an input of the network, which keeps its name.
        """
        index = self._index(name)
        message = self.layers.pop(index)
        bottom, top = message.bottom[0], message.top[0]
        if bottom == top:
            return
        for earlier in reversed(self.layers[:index]):
            written, read = bottom in earlier.top, bottom in earlier.bottom
            if written and is_input_layer(earlier):
                break
            _rename(earlier.top, bottom, top)
            if written and not read:
                return
            _rename(earlier.bottom, bottom, top)
        raise ExportError("It reads an input of the network, so it cannot be taken out.", layer=name)

    def take_out_before(self, name: str, reader: str) -> None:
        """Remove a layer with one bottom and one top, whose only reader then reads the bottom itself.

        Args:
            name: The layer.
            reader: The only layer that reads what it writes.
        """
        message = self.layers.pop(self._index(name))
        bottom, top = message.bottom[0], message.top[0]
        # Caffe lets nobody change a blob in place that has several readers, so the bottom still is what it was.
        if bottom != top:
            _rename(self.layer(reader).bottom, top, bottom)

    def pair(self) -> tuple[Any, Any]:
        """The network as (prototxt, caffemodel), two NetParameter messages."""
        prototxt, caffemodel = _copy(self._header), message_class("caffe", "caffe.NetParameter")()
        caffemodel.name = self._header.name
        for layer in self.layers:
            caffemodel.layer.append(layer)
            bare = _copy(layer)
            bare.ClearField("blobs")
            prototxt.layer.append(bare)
        return prototxt, caffemodel

    def _index(self, name: str) -> int:
        for index, layer in enumerate(self.layers):
            if layer.name == name:
                return index
        raise ExportError(
            "The Caffe network has no such layer.", layer=name, remedy="Use the network that the record was made for."
        )

    def _add_missing_inputs(self, inputs: Mapping[str, tuple[int, ...]]) -> None:
        """Inputs of data layers and headers that also bring labels, which only a loss would read, get Input layers."""
        given = {*self._header.input, *(top for layer in self.layers if not layer.bottom for top in layer.top)}
        for position, name in enumerate(name for name in inputs if name not in given):
            layer = message_class("caffe", "caffe.LayerParameter")(name=name, type="Input", top=[name])
            layer.input_param.shape.add().dim.extend(inputs[name])
            self.layers.insert(position, layer)


def _header(network: CaffeNetwork) -> Any:
    """What a NetParameter says of the whole network."""
    header = _copy(network.proto)
    header.ClearField("layer")
    header.ClearField("layers")
    if not set(header.input) <= set(network.inputs):
        for field in ("input", "input_dim", "input_shape"):
            header.ClearField(field)
    return header


def _rename(names: Any, old: str, new: str) -> None:
    for index, name in enumerate(names):
        if name == old:
            names[index] = new


def _copy(message: Any) -> Any:
    copy = type(message)()
    copy.CopyFrom(message)
    return copy
