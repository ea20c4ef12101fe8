"""Caffe's protobuf messages, by pycaffe's module names."""

from amct_lite.pycaffe.proto import caffe_pb2

__all__ = ["caffe_pb2"]
