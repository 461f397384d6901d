"""The LP relaxation of the optimal allocation: bound, fractions, prices of slots.

`solve` is the way in, and `solve_exactly` for few requests. The relaxation lets a request be
served in part and its units run at any speed up to the units asked for:

    maximise    sum_j V_j y_j
    subject to  0 <= y_j <= weight_j
                0 <= x_jt <= y_j W_j f_jt        in the slots its window touches
                sum_t x_jt = y_j W_j T_j         T_j: the duration in slots, rounded up
                sum_j x_jt <= C_t

where f_jt is the share of slot t inside the window. No allocation of whole
requests, planned with all knowledge, is worth more.
"""

from era_pricing.relaxation.allocation import allocate
from era_pricing.relaxation.clearing import Clearing, clear
from era_pricing.relaxation.exact import solve_exactly
from era_pricing.relaxation.solver import Relaxation, solve

__all__ = ["Clearing", "Relaxation", "allocate", "clear", "solve", "solve_exactly"]
