// Trains a network with one hidden layer, its gradients written by hand, with an exported optimizer.
//
// node train.mjs MODELS TASK.json OUT.bin
//
// OUT.bin holds, for each step, the gradients of all tensors and then all parameters after the step, in float32.
// The losses go to stdout as JSON.
import fs from "node:fs";
import path from "node:path";
import ort from "onnxruntime-node";

const [models, task, out] = process.argv.slice(2);
const { inputs, labels, parameters, steps } = JSON.parse(fs.readFileSync(task, "utf8"));
const [features, hidden] = parameters[0].shape;
const classes = parameters[2].shape[1];

const scalar = (number) => new ort.Tensor("float32", [number], []);
const array = (numbers, shape) => new ort.Tensor("float32", Float32Array.from(numbers), shape);

// The mean cross-entropy and its gradients by the hidden layer's weights and biases, then the output layer's.
function lossAndGradients([weights, biases, outWeights, outBiases]) {
  const gradients = [weights, biases, outWeights, outBiases].map((values) => new Float64Array(values.length));
  let loss = 0;
  inputs.forEach((x, example) => {
    const activity = Array.from({ length: hidden }, (_, j) =>
      Math.tanh(x.reduce((sum, value, i) => sum + value * weights[i * hidden + j], biases[j])),
    );
    const scores = Array.from({ length: classes }, (_, k) =>
      activity.reduce((sum, value, j) => sum + value * outWeights[j * classes + k], outBiases[k]),
    );
    const largest = Math.max(...scores);
    const exponentials = scores.map((score) => Math.exp(score - largest));
    const total = exponentials.reduce((sum, value) => sum + value);
    loss -= Math.log(exponentials[labels[example]] / total) / inputs.length;
    const byScore = exponentials.map((value, k) => (value / total - (k === labels[example])) / inputs.length);
    byScore.forEach((slope, k) => (gradients[3][k] += slope));
    activity.forEach((value, j) => {
      let back = 0;
      byScore.forEach((slope, k) => {
        gradients[2][j * classes + k] += slope * value;
        back += slope * outWeights[j * classes + k];
      });
      back *= 1 - value * value;
      gradients[1][j] += back;
      x.forEach((entry, i) => (gradients[0][i * hidden + j] += back * entry));
    });
  });
  return { loss, gradients };
}

const load = (name) => ort.InferenceSession.create(path.join(models, name));
const functionsOf = async (kind) => {
  const functions = { init: await load(`init${kind}.onnx`), update: await load(`update${kind}.onnx`) };
  const share = `share${kind}.onnx`;
  return fs.existsSync(path.join(models, share)) ? { ...functions, share: await load(share) } : functions;
};
const ofVectors = await functionsOf("");
const ofMatrices = fs.existsSync(path.join(models, "update_matrix.onnx")) ? await functionsOf("_matrix") : ofVectors;

// Runs a model on those of the values that it takes.
const run = (session, values) =>
  session.run(Object.fromEntries(session.inputNames.map((name) => [name, values[name]])));

// The sums over all tensors of what each gives.
function summed(terms) {
  const sums = {};
  for (const name of Object.keys(terms[0] ?? {})) {
    const { dims } = terms[0][name];
    const total = terms[0][name].data.map((_, i) => terms.reduce((sum, each) => sum + each[name].data[i], 0));
    sums[name] = array(total, dims);
  }
  return sums;
}

const tensors = [];
for (const { shape, values } of parameters) {
  const isMatrix = shape.length > 1;
  const longest = Math.max(...shape);
  const fixed = {
    matrix: scalar(isMatrix ? 1 : 0),
    aspect: scalar(isMatrix ? longest ** 2 / values.length : 1),
    role: scalar(isMatrix ? 1 : 0),
    total_steps: scalar(steps),
    lr: scalar(1),
    weight_decay: scalar(0),
    pretrained: scalar(-1),
  };
  const functions = isMatrix ? ofMatrices : ofVectors;
  const view = isMatrix ? [1, ...shape] : [1, 1, ...shape];
  const param = array(values, view);
  tensors.push({ functions, view, fixed, held: { param, ...(await functions.init.run({ param })) } });
}

const losses = [];
const file = fs.openSync(out, "w");
for (let step = 0; step < steps; step++) {
  const { loss, gradients } = lossAndGradients(tensors.map(({ held }) => held.param.data));
  losses.push(loss);
  const grads = gradients.map((numbers, place) => array(numbers, tensors[place].view));
  const given = tensors.map(({ fixed, held }, place) => ({ ...held, ...fixed, grad: grads[place] }));
  const terms = [];
  for (const [place, { functions }] of tensors.entries()) {
    if (functions.share) terms.push(await run(functions.share, given[place]));
  }
  const sums = summed(terms);
  for (const [place, { functions, held }] of tensors.entries()) {
    const results = await run(functions.update, { ...given[place], ...sums });
    for (const name of Object.keys(held)) held[name] = results[`next.${name}`];
  }
  for (const grad of grads) fs.writeSync(file, grad.data);
  for (const { held } of tensors) fs.writeSync(file, held.param.data);
}
fs.closeSync(file);
console.log(JSON.stringify(losses));
