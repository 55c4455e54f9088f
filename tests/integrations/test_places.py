"""Places in which people train take the steps of a plain loop."""

from typing import Any

import accelerate
import lightning
import peft
import pytest
import torch
from torch import nn, Tensor

from tests.integrations.places import (
    assert_close,
    BATCH,
    batches,
    Example,
    examples,
    loop,
    loss_of,
    Network,
    parameters,
    plain,
    STEPS,
)

PEFT_ASKS = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
"""peft 0.21 asks transformers 5.24 in words that it will remove."""


def test_a_plain_loop_learns_and_counts(Mnemosyne: Any) -> None:
    model = Network()
    optimizer = Mnemosyne(model.named_parameters(), total_steps=30)
    (batch,) = batches(examples(BATCH))
    before = loss_of(model, batch).item()
    loop(model, optimizer, [batch] * 30)
    assert int(optimizer.param_groups[0]["step"]) == 30
    assert loss_of(model, batch).item() < before / 4


def test_accelerate(Mnemosyne: Any) -> None:
    """With accumulation and clipping."""
    data = examples()
    accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=2)
    made = Network()
    loader = torch.utils.data.DataLoader(data, batch_size=BATCH // 2)  # pyright: ignore[reportArgumentType]
    optimizer = Mnemosyne(made.named_parameters(), total_steps=STEPS)
    model, prepared, loader = accelerator.prepare(made, optimizer, loader)
    for batch in loader:
        with accelerator.accumulate(model):
            accelerator.backward(loss_of(model, batch))
            if accelerator.sync_gradients:
                accelerator.clip_grad_norm_(model.parameters(), 1.0)
            prepared.step()
            prepared.zero_grad()
    assert int(optimizer.param_groups[0]["step"]) == STEPS
    assert_close(parameters(made), plain(Mnemosyne, data, clip=1.0))


class Module(lightning.LightningModule):
    def __init__(self, optimizer: Any) -> None:
        super().__init__()
        self.network = Network()
        self.optimizer = optimizer

    def training_step(self, batch: Example, *_: Any) -> Tensor:
        return loss_of(self.network, batch)

    def configure_optimizers(self) -> Any:
        return self.optimizer(self.named_parameters(), total_steps=self.trainer.estimated_stepping_batches)


@pytest.mark.filterwarnings("ignore:The 'train_dataloader' does not have many workers")
@pytest.mark.filterwarnings("ignore:`isinstance\\(treespec, LeafSpec\\)` is deprecated")
def test_lightning(Mnemosyne: Any) -> None:
    """With epochs, accumulation and clipping."""
    data, module = examples(5 * BATCH), Module(Mnemosyne)
    trainer = lightning.Trainer(
        max_epochs=2,
        accumulate_grad_batches=2,
        gradient_clip_val=1.0,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, torch.utils.data.DataLoader(data, batch_size=BATCH // 2))  # pyright: ignore[reportArgumentType]
    (optimizer,) = trainer.optimizers
    assert optimizer.param_groups[0]["total_steps"] == int(optimizer.param_groups[0]["step"]) == STEPS
    assert_close(parameters(module.network), plain(Mnemosyne, data * 2, clip=1.0))


@PEFT_ASKS
def test_peft_trains_adapters_and_nothing_else(Mnemosyne: Any) -> None:
    """Names of PEFT lead to the roles of the adapters."""

    def adapted() -> Any:
        torch.manual_seed(0)
        config = peft.LoraConfig(r=4, target_modules=["encoder", "decoder"], modules_to_save=["head"])
        return peft.get_peft_model(Network(), config)  # pyright: ignore[reportArgumentType]

    model, other = adapted(), adapted()
    frozen = {name: value for name, value in parameters(model).items() if "base_layer" in name or "embedding" in name}
    found = batches(examples())
    loop(model, Mnemosyne(model.named_parameters(), total_steps=STEPS), found)
    trained = [(name, param) for name, param in other.named_parameters() if param.requires_grad]
    loop(other, Mnemosyne(trained, total_steps=STEPS), found)
    assert_close(parameters(model), parameters(other))
    after = parameters(model)
    assert frozen and all(torch.equal(after[name], value) for name, value in frozen.items())
    adapters = [name for name, _ in trained if "lora" in name]
    assert len(adapters) == 4 and all(not torch.equal(after[name], parameters(adapted())[name]) for name in adapters)


@PEFT_ASKS
def test_peft_trains_a_soft_prompt(Mnemosyne: Any) -> None:
    import transformers

    torch.manual_seed(0)
    sizes = {"vocab_size": 40, "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2}
    options: dict[str, Any] = {"decoder_start_token_id": 0, "dropout_rate": 0.0}
    config = transformers.T5Config(**sizes, **options)
    prompt = peft.PromptTuningConfig(task_type=peft.TaskType.SEQ_2_SEQ_LM, num_virtual_tokens=4)
    model: Any = peft.get_peft_model(transformers.T5ForConditionalGeneration(config), prompt)
    ((name, before),) = [
        (name, param.detach().clone()) for name, param in model.named_parameters() if param.requires_grad
    ]
    symbols = torch.randint(40, (BATCH, 6), generator=torch.Generator().manual_seed(0))
    batch = {"input_ids": symbols, "attention_mask": torch.ones_like(symbols), "labels": symbols}
    first = model(**batch).loss.item()
    optimizer = Mnemosyne(model.named_parameters(), total_steps=30)
    loop(model, optimizer, [batch] * 30)
    assert len(optimizer.state) == 1
    assert not torch.equal(parameters(model)[name], before)
    assert model(**batch).loss.item() < first


def test_accumulated_parts_of_a_batch(Mnemosyne: Any) -> None:
    """Whether or not the parts are divided by their number."""
    data, model = examples(), Network()
    optimizer = Mnemosyne(model.named_parameters(), total_steps=STEPS)
    for place, part in enumerate(batches(data, BATCH // 2)):
        loss_of(model, part).backward()
        if place % 2:
            optimizer.step()
            optimizer.zero_grad()
    assert_close(parameters(model), plain(Mnemosyne, data), 1e-4)


def test_a_gradient_scaler_changes_nothing_and_its_left_out_steps_do_not_count(Mnemosyne: Any) -> None:
    data, model = examples(), Network()
    optimizer = Mnemosyne(model.named_parameters(), total_steps=STEPS)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    for place, batch in enumerate([batches(data)[0], *batches(data)]):
        optimizer.zero_grad()
        scaler.scale(loss_of(model, batch)).backward()
        if place == 0:
            model.norm.weight.grad = torch.full_like(model.norm.weight, torch.inf)
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_([param for param in model.parameters() if place], 1.0)
        scaler.step(optimizer)
        scaler.update()
    assert int(optimizer.param_groups[0]["step"]) == STEPS
    assert_close(parameters(model), plain(Mnemosyne, data, clip=1.0))


def test_autocast_around_everything(Mnemosyne: Any) -> None:
    """Gradients are those of bfloat16, and the step's own arithmetic is not."""

    def trained(around_step: bool) -> dict[str, Tensor]:
        model = Network()
        optimizer = Mnemosyne(model.named_parameters(), total_steps=STEPS)
        for batch in batches(examples()):
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16):
                loss = loss_of(model, batch)
            loss.backward()
            with torch.autocast("cpu", torch.bfloat16, enabled=around_step):
                optimizer.step()
        return parameters(model)

    assert_close(trained(True), trained(False))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated")
def test_a_compiled_model(Mnemosyne: Any) -> None:
    """Its names have a prefix, and the roles stay."""
    model = Network()
    compiled: Any = torch.compile(model)
    found = batches(examples())
    loop(compiled, Mnemosyne(compiled.named_parameters(), total_steps=STEPS), found)
    assert_close(parameters(model), plain(Mnemosyne, examples()))


def with_gains() -> Network:
    """A network whose normalisation has been trained."""
    model = Network()
    with torch.no_grad():
        model.norm.weight.copy_(torch.linspace(0.2, 2, 24))
    return model


def in_backward(Mnemosyne: Any, pretrained: bool | None, steps: int) -> dict[str, Tensor]:
    """The parameters after steps that each parameter takes as soon as it has its gradient."""
    model = with_gains()
    for name, param in model.named_parameters():
        optimizer = Mnemosyne([(name, param)], total_steps=STEPS, pretrained=pretrained)

        def step(param: Tensor, optimizer: Any = optimizer) -> None:
            optimizer.step()
            param.grad = None

        param.register_post_accumulate_grad_hook(step)
    for batch in batches(examples())[:steps]:
        loss_of(model, batch).backward()
    return parameters(model)


def together(Mnemosyne: Any, pretrained: bool | None, steps: int) -> dict[str, Tensor]:
    """The same with one optimizer."""
    model = with_gains()
    optimizer = Mnemosyne(model.named_parameters(), total_steps=STEPS, pretrained=pretrained)
    return loop(model, optimizer, batches(examples())[:steps])


@pytest.mark.parametrize("pretrained", [False, True])
def test_steps_in_backward_are_the_same_where_pretrained_is_an_argument(Mnemosyne: Any, pretrained: bool) -> None:
    assert_close(in_backward(Mnemosyne, pretrained, STEPS), together(Mnemosyne, pretrained, STEPS))


def test_a_step_in_backward_does_not_see_whether_the_network_is_pretrained(Mnemosyne: Any) -> None:
    """A trained gain of a normalisation halves the steps of all tensors that one optimizer has."""
    step_of = {
        name: steps["encoder.weight"] - with_gains().encoder.weight.detach()
        for name, steps in {
            "alone": in_backward(Mnemosyne, None, 1),
            "together": together(Mnemosyne, None, 1),
            "full": together(Mnemosyne, False, 1),
            "half": together(Mnemosyne, True, 1),
        }.items()
    }
    assert_close({"": step_of["together"], " ": step_of["half"]}, {"": step_of["half"], " ": step_of["full"] / 2}, 1e-3)
    assert_close({"": step_of["alone"]}, {"": step_of["full"]}, 1e-3)


def test_tied_weights_move_once(Mnemosyne: Any) -> None:
    model = Network(tied=True)
    optimizer = Mnemosyne(model.named_parameters(), total_steps=STEPS)
    loop(model, optimizer, batches(examples()))
    assert model.head.weight is model.embedding.weight
    assert len(optimizer.state) == len(list(model.parameters())) == 7


def test_frozen_and_unused_parameters_cost_nothing_and_change_nothing(Mnemosyne: Any) -> None:
    model = Network()
    model.register_parameter("unused", nn.Parameter(torch.ones(5, 5)))
    model.head.weight.requires_grad_(False)
    optimizer = Mnemosyne(model.named_parameters(), total_steps=STEPS)
    after = loop(model, optimizer, batches(examples()))
    other = Network()
    other.head.weight.requires_grad_(False)
    trained = [(name, param) for name, param in other.named_parameters() if param.requires_grad]
    expected = loop(other, Mnemosyne(trained, total_steps=STEPS), batches(examples()))
    assert torch.equal(after.pop("unused"), torch.ones(5, 5))
    assert_close(after, expected)
    assert not {id(model.head.weight), id(model.unused)} & {id(param) for param in optimizer.state}
