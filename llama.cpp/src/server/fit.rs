//! How much context, how many slots and GPU layers fit into memory. Pure: what a choice needs is
//! asked of a function, which in the program is llama.cpp computing it without allocating.

use crate::llama::HOST;

/// What the user fixed; the rest is chosen.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wish {
    /// Tokens that all slots share.
    pub context: Option<u32>,
    /// Requests served at once.
    pub slots: Option<u32>,
    /// Layers on GPUs.
    pub gpu_layers: Option<u32>,
}

/// A choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// Tokens that all slots share.
    pub context: u32,
    /// Requests served at once.
    pub slots: u32,
    /// Layers on GPUs.
    pub gpu_layers: u32,
}

impl Plan {
    /// Whether it serves as many requests at once as `other`, with as much of the model on GPUs.
    pub fn is_as_fast_as(&self, other: &Self) -> bool {
        self.slots >= other.slots && self.gpu_layers >= other.gpu_layers
    }

    /// The fastest that could be wished for, with this context.
    pub fn fastest(wish: Wish, layers: u32, context: u32) -> Self {
        Self {
            context,
            slots: wish.slots.unwrap_or(SLOTS),
            gpu_layers: wish.gpu_layers.unwrap_or(layers),
        }
    }
}

/// What a choice needs of one memory, in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Demand {
    /// Whose memory.
    pub device: String,
    /// What must fit.
    pub needed: u64,
    /// Of that, what grows with the context.
    pub cache: u64,
    /// What there is, a margin for others already taken off.
    pub free: u64,
}

impl Demand {
    fn fits(&self) -> bool {
        self.needed <= self.free
    }
}

/// Nothing fits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shortage {
    /// What was tried last.
    pub plan: Plan,
    /// The memory that is short.
    pub demand: Demand,
}

/// Slots where the user did not say.
const SLOTS: u32 = 8;
/// Less context than this is given only where the user, or the model, says so.
const LEAST_CONTEXT: u32 = 4096;
/// llama.cpp rounds contexts up to this.
const CONTEXT_STEP: u32 = 256;

/// Finds the most GPU layers, then the most context up to `context_train`, then slots that fit, and
/// says what they need.
///
/// A context that nobody asked for takes at most half of the memory that the weights leave: others
/// use this machine, too.
///
/// # Errors
/// The outer error is `measure`'s; the inner one says that nothing fits.
pub fn fit<E>(
    wish: Wish,
    context_train: u32,
    layers: u32,
    mut measure: impl FnMut(Plan) -> Result<Vec<Demand>, E>,
) -> Result<Result<(Plan, Vec<Demand>), Shortage>, E> {
    let least = wish.context.unwrap_or(LEAST_CONTEXT.min(context_train)).max(1);
    let mut plan = Plan::fastest(wish, layers, least);
    let mut demands = measure(plan)?;
    if short(&demands).is_some() && wish.gpu_layers.is_none() && layers > 0 {
        // The host's need shrinks with every layer that leaves it: only the devices' grow.
        let fits = |count: u32| {
            let demands = measure(Plan {
                gpu_layers: count,
                ..plan
            })?;
            Ok(demands
                .iter()
                .filter(|demand| demand.device != HOST)
                .all(Demand::fits))
        };
        plan.gpu_layers = largest(0, layers, fits)?;
        demands = measure(plan)?;
    }
    if short(&demands).is_some() && wish.slots.is_none() {
        plan.slots = 1;
        demands = measure(plan)?;
    }
    if let Some(demand) = short(&demands) {
        return Ok(Err(Shortage {
            plan,
            demand: demand.clone(),
        }));
    }
    let most = wish.context.unwrap_or(context_train);
    if most > least {
        let chosen = grow_context(plan, &demands, most, |context| measure(Plan { context, ..plan }))?;
        (plan.context, demands) = chosen.unwrap_or((least, demands));
    }
    Ok(Ok((plan, demands)))
}

fn short(demands: &[Demand]) -> Option<&Demand> {
    demands.iter().find(|demand| !demand.fits())
}

/// Whether all of it fits, and the cache takes at most half of what the rest leaves.
fn is_modest(demands: &[Demand]) -> bool {
    demands.iter().all(|demand| {
        let left = demand
            .free
            .saturating_sub(demand.needed.saturating_sub(demand.cache));
        demand.fits() && demand.cache <= left / 2
    })
}

/// The largest modest context up to `most`, if there is one above that of `plan`, whose demands are
/// `at_least`. What is needed grows in a straight line, nearly: the line says where to look.
fn grow_context<E>(
    plan: Plan,
    at_least: &[Demand],
    most: u32,
    mut measure: impl FnMut(u32) -> Result<Vec<Demand>, E>,
) -> Result<Option<(u32, Vec<Demand>)>, E> {
    let least = plan.context;
    let at_most = measure(most)?;
    if is_modest(&at_most) {
        return Ok(Some((most, at_most)));
    }
    let between = |context: u32| -> Vec<Demand> {
        let share = f64::from(context - least) / f64::from(most - least);
        let line = |low: u64, high: u64| low + (high.saturating_sub(low) as f64 * share) as u64;
        let pairs = at_least.iter().zip(&at_most);
        pairs
            .map(|(low, high)| Demand {
                needed: line(low.needed, high.needed),
                cache: line(low.cache, high.cache),
                ..low.clone()
            })
            .collect()
    };
    let first = least.div_ceil(CONTEXT_STEP);
    let Ok(mut step) = largest(first, (most / CONTEXT_STEP).max(first), |step| {
        Ok::<_, std::convert::Infallible>(is_modest(&between((step * CONTEXT_STEP).min(most))))
    });
    while step > first {
        let context = step * CONTEXT_STEP;
        let demands = measure(context)?;
        if is_modest(&demands) {
            return Ok(Some((context, demands)));
        }
        step -= (step / 16).max(1);
    }
    Ok(None)
}

/// The largest number from `low`, which is taken to do, to `high` that does; `does` is true up to
/// some number and false from there.
fn largest<E>(mut low: u32, mut high: u32, mut does: impl FnMut(u32) -> Result<bool, E>) -> Result<u32, E> {
    while low < high {
        let middle = low + (high - low).div_ceil(2);
        if does(middle)? {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    Ok(low)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::convert::Infallible;

    const GB: u64 = 1_000_000_000;

    /// One host with `free` bytes, weights of `weights`, a cache of 100 kB a token, 10 MB a slot.
    fn host(free: u64, weights: u64) -> impl FnMut(Plan) -> Result<Vec<Demand>, Infallible> {
        move |plan| {
            let cache = u64::from(plan.context) * 100_000;
            let needed = weights + cache + u64::from(plan.slots) * 10_000_000;
            Ok(vec![Demand {
                device: "host".into(),
                needed,
                cache,
                free,
            }])
        }
    }

    fn plan(wish: Wish, free: u64, weights: u64) -> Result<Plan, Shortage> {
        let Ok(result) = fit(wish, 32_768, 0, host(free, weights));
        result.map(|(plan, _)| plan)
    }

    #[test]
    fn with_plenty_of_memory_the_model_gets_the_context_it_was_trained_for() {
        assert_eq!(
            plan(Wish::default(), 64 * GB, 5 * GB).unwrap(),
            Plan {
                context: 32_768,
                slots: 8,
                gpu_layers: 0
            }
        );
    }

    #[test]
    fn the_context_takes_at_most_half_of_what_the_weights_leave() {
        let chosen = plan(Wish::default(), 8 * GB, 5 * GB).unwrap();
        let cache = u64::from(chosen.context) * 100_000;
        assert!(chosen.context >= 4096 && cache <= 3 * GB / 2, "{chosen:?}");
        assert!(
            cache > 14 * GB / 10,
            "no more than that is left unused: {chosen:?}"
        );
    }

    #[test]
    fn what_the_user_fixed_is_kept_or_refused_with_numbers() {
        let wish = Wish {
            context: Some(20_000),
            slots: Some(3),
            gpu_layers: None,
        };
        assert_eq!(
            plan(wish, 8 * GB, 5 * GB).unwrap(),
            Plan {
                context: 20_000,
                slots: 3,
                gpu_layers: 0
            }
        );
        let shortage = plan(wish, 6 * GB, 5 * GB).unwrap_err();
        assert_eq!(
            (shortage.demand.needed, shortage.demand.free),
            (7_030_000_000, 6 * GB)
        );
    }

    #[test]
    fn as_many_layers_as_fit_go_to_the_gpu() {
        let measure = |plan: Plan| {
            let cache = u64::from(plan.context) * 1000;
            Ok::<_, Infallible>(vec![
                Demand {
                    device: "GPU0".into(),
                    needed: u64::from(plan.gpu_layers) * GB,
                    cache: 0,
                    free: 10 * GB + 1,
                },
                Demand {
                    device: "host".into(),
                    needed: u64::from(40 - plan.gpu_layers) * GB + cache,
                    cache,
                    free: 64 * GB,
                },
            ])
        };
        let Ok(chosen) = fit(Wish::default(), 8192, 40, measure);
        assert_eq!(chosen.unwrap().0.gpu_layers, 10);
    }

    #[test]
    fn a_model_that_neither_gpu_nor_host_holds_alone_is_divided() {
        let measure = |plan: Plan| {
            let gpu = u64::from(plan.gpu_layers) * GB * 3 / 4;
            let host = u64::from(40 - plan.gpu_layers) * GB * 3 / 4;
            Ok::<_, Infallible>(vec![
                Demand {
                    device: "GPU0".into(),
                    needed: gpu,
                    cache: 0,
                    free: 24 * GB,
                },
                Demand {
                    device: HOST.into(),
                    needed: host,
                    cache: 0,
                    free: 10 * GB,
                },
            ])
        };
        let Ok(chosen) = fit(Wish::default(), 4096, 40, measure);
        assert_eq!(chosen.unwrap().0.gpu_layers, 32);
    }

    proptest! {
        #[test]
        fn whatever_is_chosen_fits(free in 1..200_u64, weights in 1..200_u64, slots in prop::option::of(1..64_u32), context in prop::option::of(1..200_000_u32)) {
            let wish = Wish { context, slots, gpu_layers: None };
            match plan(wish, free * GB, weights * GB) {
                Ok(plan) => {
                    let Ok(demands) = host(free * GB, weights * GB)(plan);
                    prop_assert!(demands[0].fits());
                    prop_assert_eq!(plan.context, context.unwrap_or(plan.context));
                    prop_assert_eq!(plan.slots, slots.unwrap_or(plan.slots));
                }
                Err(shortage) => prop_assert!(shortage.demand.needed > shortage.demand.free),
            }
        }
    }
}
