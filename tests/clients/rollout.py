"""Runs an exported optimizer in whatever ONNX Runtime this Python has, without anything of this project.

python rollout.py MODELS TASK.npz OUT.npz

TASK.npz holds `count`, `steps`, `lr`, `weight_decay` and `total_steps`, and for each tensor i its `param.i` and its
gradients `grad.i`, with an axis of steps in front. OUT.npz gets `LEVEL.i`, the parameters after each step, for the
lowest and the highest optimization level.
"""

import os
import sys

import numpy as np
import onnxruntime

LEVELS = ("ORT_DISABLE_ALL", "ORT_ENABLE_ALL")


def load(path, level):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def run(session, inputs):
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs)))


def rollout(init, update, param, grads, options):
    shape, flat = param.shape, param.reshape(-1)
    matrix = len(shape) > 1
    fixed = dict(options, matrix=matrix, aspect=max(shape) ** 2 / param.size if matrix else 1)
    fixed = {name: np.array(value, np.float32) for name, value in fixed.items()}
    held = dict(run(init, {"param": flat}), param=flat)
    results = []
    for grad in grads:
        outputs = run(update, dict(held, grad=grad.reshape(-1), **fixed))
        held = {name: np.asarray(outputs["next." + name]) for name in held}
        results.append(held["param"].reshape(shape))
    return np.stack(results)


def main(models, task, out):
    given = np.load(task)
    options = {name: float(given[name]) for name in ("lr", "weight_decay", "total_steps")}
    results = {}
    for level in LEVELS:
        init, update = (load(os.path.join(models, name), level) for name in ("init.onnx", "update.onnx"))
        for i in range(int(given["count"])):
            name = str(i)
            results[level + "." + name] = rollout(init, update, given["param." + name], given["grad." + name], options)
    np.savez(out, **results)
    print(onnxruntime.__version__)


if __name__ == "__main__":
    main(*sys.argv[1:])
