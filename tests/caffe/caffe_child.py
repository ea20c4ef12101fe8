"""Runs inside a Python 3.9 that has real Caffe: `caffe_child.py job.npz result.npz`. Aborts must not reach the tests.

job.npz: `prototxt` and `caffemodel` (paths as text; the latter empty for none), `input/{blob}` arrays, optional
`param/{layer}/{index}` arrays to set as weights, optional `save` (path of a caffemodel to write).
result.npz: `blob/{name}` after a forward pass, `param/{layer}/{index}`.
"""

import sys

import caffe
import numpy as np


def main():
    job = np.load(sys.argv[1])
    caffe.set_mode_cpu()
    weights = str(job["caffemodel"])
    net = caffe.Net(str(job["prototxt"]), caffe.TEST, **({"weights": weights} if weights else {}))
    for key in job.files:
        kind, _, rest = key.partition("/")
        if kind == "param":
            layer, _, index = rest.rpartition("/")
            blob = net.params[layer][int(index)]
            blob.data[...] = job[key].reshape(blob.data.shape)
        if kind == "input":
            net.blobs[rest].reshape(*job[key].shape)
    net.reshape()
    for key in job.files:
        if key.startswith("input/"):
            net.blobs[key[6:]].data[...] = job[key]
    net.forward()
    result = {"blob/" + name: blob.data for name, blob in net.blobs.items()}
    for layer, blobs in net.params.items():
        for index, blob in enumerate(blobs):
            result[f"param/{layer}/{index}"] = blob.data
    if "save" in job.files:
        net.save(str(job["save"]))
    np.savez(sys.argv[2], **result)


main()
