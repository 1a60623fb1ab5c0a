"""A plan in words, for `swarm plan`: who holds what, how fast it will be, what limits it, who is left out and why."""

from __future__ import annotations

from swarm.cluster.cost import ModelCost
from swarm.cluster.pipeline import Stage
from swarm.cluster.planner import LeftOut, NoPlan, Plan, ShardPlan
from swarm.units import size_text, time_text


def explain(result: Plan | NoPlan) -> list[str]:
    """Lines for a person to read."""
    return _explain_plan(result) if isinstance(result, Plan) else _explain_no_plan(result)


def _explain_plan(plan: Plan) -> list[str]:
    demand, prediction = plan.demand, plan.prediction
    model = demand.model
    chats = f" for each of {demand.sessions} chats" if demand.sessions > 1 else ""
    first_token = f"first token after {_seconds(prediction.first_token_s)} for {prediction.prompt} tokens of prompt"
    n_stages = len(plan.stages)
    many = str(demand.sessions) if demand.sessions > 1 else f"{n_stages} or more"
    several = f"with {many} chats at once: {_rate(prediction.busy_tokens_per_s)} together"
    width = max(len(shard.name) for stage in plan.stages for shard in stage.members)
    return [
        f"{model.name}: {model.n_layers} layers, {size_text(model.all_stored_bytes)}, context {demand.context}{chats}"
        + _on_disk(model),
        *(
            _shard_line(model, stage, shard, seconds, width)
            for stage, seconds in zip(plan.stages, prediction.stage_s, strict=True)
            for shard in stage.members
        ),
        f"predicted: {_rate(prediction.tokens_per_s)}{_in_memory(plan)}, {first_token}",
        *([several] if n_stages > 1 or demand.sessions > 1 else []),
        f"limited by {plan.limits}",
        *_left_out_lines(plan.left_out),
    ]


def _on_disk(model: ModelCost) -> str:
    share = model.resident_share
    return f", {100 * share:.0f} % of the experts in memory, the rest on disk" if share < 1.0 else ""


def _in_memory(plan: Plan) -> str:
    if plan.in_memory is None:
        return ""
    hits = 100 * plan.demand.model.hit_rate
    return f" ({_rate(plan.in_memory.tokens_per_s)} if all of it fitted; {hits:.0f} % of experts found in memory)"


def _shard_line(model: ModelCost, stage: Stage[ShardPlan], shard: ShardPlan, seconds: float, width: int) -> str:
    ends = [word for word, true in (("embedding", stage.first == 0), ("head", stage.end == model.n_layers)) if true]
    what = " + ".join([f"layers {stage.first}-{stage.end - 1}", *ends])
    what += f", {100 * shard.share:.0f} % of each" if shard.slice else ""
    takes = f" ({time_text(shard.fetch_s)})" if shard.fetch_s else ""
    fetch = f", {size_text(shard.fetch_bytes)} to fetch{takes}" if shard.fetch_bytes else ""
    return f"  {shard.name:{width}}  {what}: {size_text(shard.memory_bytes)}{fetch}, {1e3 * seconds:.1f} ms a token"


def _explain_no_plan(result: NoPlan) -> list[str]:
    lines = [result.reason]
    if result.missing_bytes:
        lines.append(
            f"add a device with {size_text(result.missing_bytes)} of free memory, or raise --memory on those there are"
        )
    if result.context_that_fits:
        lines.append(f"with a context of {result.context_that_fits} instead of {result.demand.context} tokens it fits")
    if result.missing_parts:
        lines.append("turn on the device that has the model, or pull it again")
    return lines + _left_out_lines(result.left_out)


def _left_out_lines(left_out: tuple[LeftOut, ...]) -> list[str]:
    return [f"left out: {out.name}: {out.reason}" for out in left_out]


def _rate(tokens_per_s: float) -> str:
    digits = 2 if tokens_per_s < 1 else 1 if tokens_per_s < 100 else 0
    return f"{tokens_per_s:.{digits}f} tok/s"


def _seconds(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds >= 1 else f"{1e3 * seconds:.0f} ms"
