"""Runs an exported optimizer in whatever ONNX Runtime this Python has, without anything of this project.

python rollout.py MODELS TASK.npz OUT.npz

TASK.npz holds `count`, `chunk_length`, `lr`, `weight_decay` and `total_steps`, and for each tensor i its `param.i`, its
role's number `role.i` and its gradients `grad.i`, with an axis of steps in front. OUT.npz gets `LEVEL.i`, the
parameters after each step, for the lowest and the highest optimization level.
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


def view_of(shape, role, chunk):
    """The shape of a tensor as batch, rows and columns."""
    if role == 4:
        return 1, shape[0], int(np.prod(shape[1:]))
    if role == 1:
        return (1,) + tuple(size for size in shape if size != 1)
    columns = 1
    for size in reversed(shape):
        columns *= size
        if columns >= chunk:
            break
    return 1, int(np.prod(shape)) // columns, columns


def facts(shape, size, role):
    matrix = len(shape) > 1
    return {"matrix": matrix, "aspect": max(shape) ** 2 / size if matrix else 1, "role": role}


def rollout(functions, params, roles, history, options, chunk):
    """Parameters after each step. `functions` holds those of tensors without tiles, then those with, if there are."""
    fixed = [
        {
            name: np.array(value, np.float32)
            for name, value in dict(options, **facts(param.shape, param.size, role)).items()
        }
        for param, role in zip(params, roles)
    ]
    views = [view_of(param.shape, role, chunk) for param, role in zip(params, roles)]
    own = [functions[-1 if role in (1, 4) else 0] for role in roles]
    held = [
        dict(run(each["init"], {"param": param.reshape(view)}), param=param.reshape(view))
        for each, param, view in zip(own, params, views)
    ]
    results = []
    for grads in history:
        given = [dict(h, grad=grad.reshape(view), **f) for h, grad, f, view in zip(held, grads, fixed, views)]
        terms = [run(each["share"], inputs) for each, inputs in zip(own, given)] if "share" in own[0] else [{}]
        sums = {name: np.asarray(sum(each[name] for each in terms), np.float32) for name in terms[0]}
        outputs = [run(each["update"], dict(inputs, **sums)) for each, inputs in zip(own, given)]
        held = [{name: np.asarray(each["next." + name]) for name in h} for h, each in zip(held, outputs)]
        results.append([each["param"].reshape(param.shape) for each, param in zip(held, params)])
    return [np.stack(steps) for steps in zip(*results)]


def load_all(models, level):
    """The functions by name, for each kind of tensors."""
    kinds = []
    for kind in ("", "_matrix"):
        paths = {name: os.path.join(models, name + kind + ".onnx") for name in ("init", "share", "update")}
        kinds.append({name: load(path, level) for name, path in paths.items() if os.path.exists(path)})
    return [functions for functions in kinds if functions]


def main(models, task, out):
    given = np.load(task)
    options = {name: float(given[name]) for name in ("lr", "weight_decay", "total_steps")}
    options["pretrained"] = -1.0
    count = int(given["count"])
    params = [given["param." + str(i)] for i in range(count)]
    roles = [int(given["role." + str(i)]) for i in range(count)]
    history = list(zip(*(given["grad." + str(i)] for i in range(count))))
    results = {}
    for level in LEVELS:
        functions = load_all(models, level)
        for i, steps in enumerate(rollout(functions, params, roles, history, options, int(given["chunk_length"]))):
            results[level + "." + str(i)] = steps
    np.savez(out, **results)
    print(onnxruntime.__version__)


if __name__ == "__main__":
    main(*sys.argv[1:])
