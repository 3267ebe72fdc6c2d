"""AdamW on named parameters, step by step, with a state that can be kept and taken up again bit for bit.

Two models that train side by side can share one preconditioner: they then differ by what their objectives differ in.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

CLIP_NORM = 1.0
CLIP_EPSILON = 1e-6
"""Of `clip_grad_norm_`."""
FARTHEST = 2.0
"""Steps of its own that a descent goes at most when it follows another."""


class Descent:
    """AdamW with the gradient's norm clipped at 1; the learning rate is given at every step.

    Args:
        parameters: what is trained, by name.
        betas: decays of the two moments.
        weight_decay: decoupled weight decay.
    """

    def __init__(
        self, parameters: Mapping[str, nn.Parameter], *, betas: tuple[float, float], weight_decay: float = 0.0
    ) -> None:
        self.parameters = dict(parameters)
        self.optimizer = torch.optim.AdamW(self.parameters.values(), lr=0.0, betas=betas, weight_decay=weight_decay)
        self._clip = torch.ones(())

    def step(self, rate: float) -> Tensor:
        """Take a step along the gradients that are there and drop them.

        Returns:
            The gradient's norm before it was clipped, a scalar that nobody has waited for.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        norm = nn.utils.clip_grad_norm_(self.parameters.values(), CLIP_NORM)
        self._clip = (CLIP_NORM / (norm + CLIP_EPSILON)).clamp(max=1.0)
        self.optimizer.step()
        self.clear()
        return norm

    @torch.no_grad()
    def follow(self, leader: Descent, rate: float) -> None:
        """Take a step along the gradients that are there and drop them, as the leader took its last.

        The gradient is multiplied by what the leader's was multiplied by to be clipped, its running mean is this descent's own,
        and it is divided by the leader's second moment: the same gradient moves both alike. With a second moment of its own,
        whoever has more to its gradient would be moved less by the part that both have. Where the leader's gradient has all but
        vanished and this one has not, its own second moment keeps the step at `FARTHEST` of its own. Without weight decay.

        Args:
            leader: of a model with the same parameters, which has just taken its step.
            rate: learning rate.
        """
        for name, parameter in self.parameters.items():
            led = leader.optimizer.state.get(leader.parameters[name])
            if parameter.grad is None or not led:
                continue
            (beta1, beta2), epsilon = (leader.optimizer.defaults[key] for key in ("betas", "eps"))
            own = self.optimizer.state[parameter]
            own.setdefault("step", torch.zeros(()))
            mean, square = (own.setdefault(key, torch.zeros_like(parameter)) for key in ("exp_avg", "exp_avg_sq"))
            own["step"] += 1
            steps, gradient = float(own["step"]), parameter.grad * leader._clip
            mean.lerp_(gradient, 1 - beta1)
            square.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
            least = square / (FARTHEST**2 * (1 - beta2**steps))
            second = torch.maximum(led["exp_avg_sq"] / (1 - beta2 ** float(led["step"])), least)
            parameter.addcdiv_(mean, second.sqrt_().add_(epsilon), value=-rate / (1 - beta1**steps))
        self.clear()

    def clear(self) -> None:
        """Drop all gradients."""
        self.optimizer.zero_grad(set_to_none=True)

    def state(self) -> dict[str, Tensor]:
        """Parameters and moments, as tensors on the CPU."""
        found: dict[str, Tensor] = {}
        for name, parameter in self.parameters.items():
            found[name] = parameter.detach().cpu().clone()
            for key, value in self.optimizer.state.get(parameter, {}).items():
                found[f"{name}/{key}"] = value.detach().cpu().clone()
        return found

    @torch.no_grad()
    def load(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a state of the same parameters."""
        for name, parameter in self.parameters.items():
            parameter.copy_(state[name])
            moments = {
                key.removeprefix(f"{name}/"): value for key, value in state.items() if key.startswith(f"{name}/")
            }
            if moments:
                self.optimizer.state[parameter] = {
                    key: value.clone() if key == "step" else value.to(parameter.device).clone()
                    for key, value in moments.items()
                }
