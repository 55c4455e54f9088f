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
    given = {value.name: inputs[value.name] for value in session.get_inputs()}
    return dict(zip(names, session.run(names, given)))


def role_of(shape):
    axes = sorted(size for size in shape if size != 1)
    if len(axes) != 2:
        return 0 if len(axes) < 2 else 4
    return 2 if axes[1] >= 16 * axes[0] else 1


def facts(shape, size):
    matrix = len(shape) > 1
    return {"matrix": matrix, "aspect": max(shape) ** 2 / size if matrix else 1, "role": role_of(shape)}


def rollout(init, share, update, params, history, options):
    fixed = [
        {name: np.array(value, np.float32) for name, value in dict(options, **facts(param.shape, param.size)).items()}
        for param in params
    ]
    held = [dict(run(init, {"param": param.reshape(-1)}), param=param.reshape(-1)) for param in params]
    results = []
    for grads in history:
        given = [dict(h, grad=grad.reshape(-1), **f) for h, grad, f in zip(held, grads, fixed)]
        terms = [run(share, inputs) for inputs in given] if share else [{}]
        sums = {name: np.asarray(sum(each[name] for each in terms), np.float32) for name in terms[0]}
        outputs = [run(update, dict(inputs, **sums)) for inputs in given]
        held = [{name: np.asarray(each["next." + name]) for name in held[0]} for each in outputs]
        results.append([each["param"].reshape(param.shape) for each, param in zip(held, params)])
    return [np.stack(steps) for steps in zip(*results)]


def main(models, task, out):
    given = np.load(task)
    options = {name: float(given[name]) for name in ("lr", "weight_decay", "total_steps")}
    count = int(given["count"])
    params = [given["param." + str(i)] for i in range(count)]
    history = list(zip(*(given["grad." + str(i)] for i in range(count))))
    results = {}
    for level in LEVELS:
        paths = [os.path.join(models, name) for name in ("init.onnx", "share.onnx", "update.onnx")]
        init, share, update = (load(path, level) if os.path.exists(path) else None for path in paths)
        for i, steps in enumerate(rollout(init, share, update, params, history, options)):
            results[level + "." + str(i)] = steps
    np.savez(out, **results)
    print(onnxruntime.__version__)


if __name__ == "__main__":
    main(*sys.argv[1:])
