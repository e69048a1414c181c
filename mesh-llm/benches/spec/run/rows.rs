//! What was measured, in rows.

use super::case::Case;
use super::measure::{Figures, Measured};
use super::variant::Variant;
use crate::support::report::{Goal, Metric, Report};
use crate::support::statistics::median;

const RATE: Metric = Metric::new("tokens_per_s", "tokens/s");
const RATE_RATIO: Metric = Metric::new("tokens_per_s", "ratio");
const ACCEPTANCE: Metric = Metric::new("acceptance", "ratio");
/// Without guesses a ring, once round all nodes, yields one.
const PER_RING: Metric = Metric::new("tokens_per_ring", "tokens");
const DEPTH: Metric = Metric::new("depth", "windows");

/// Of the best fixed setting.
const OF_BEST: Goal = Goal::AtLeast(0.9);

/// Writes the rows of a case.
pub fn write(report: &mut Report, case: &Case, measured: &[Measured]) {
    let mut rows = report.case(case.name());
    let values = |measured: &Measured, of: fn(&Figures) -> f64| measured.rounds.iter().map(of).collect();
    let rates = |measured: &Measured| -> Vec<f64> { values(measured, |figures| figures.rate) };
    let of = |variant: Variant| measured.iter().find(|measured| measured.variant == variant);
    let none = of(Variant::None).map(rates);
    let to_none = |measured: &Measured| -> Option<Vec<f64>> {
        let rates = rates(measured).into_iter().zip(none.as_ref()?);
        Some(rates.map(|(rate, none)| rate / none).collect())
    };
    for one in measured {
        let name = one.variant.name();
        rows.row(&name, RATE, &rates(one));
        if one.variant == Variant::None {
            continue;
        }
        let acceptance: Vec<f64> = one
            .rounds
            .iter()
            .filter_map(|figures| figures.acceptance)
            .collect();
        if !acceptance.is_empty() {
            rows.row(&name, ACCEPTANCE, &acceptance);
        }
        // Of several streams each has its own ring: together they are many in each.
        if let Some(ratios) = to_none(one) {
            rows.row(&name, PER_RING, &ratios);
        }
        rows.row(&name, DEPTH, &values(one, |figures| figures.depth));
    }
    let Some(policy) = of(Variant::Policy) else {
        return;
    };
    if let Some(ratios) = to_none(policy) {
        rows.row_with_goal(
            "policy / none",
            RATE_RATIO,
            &ratios,
            Goal::AtLeast(case.least_gain()),
        );
    }
    let fixed = measured.iter().filter(|measured| measured.variant.is_fixed());
    let best = fixed
        .map(|measured| (measured.variant, median(&rates(measured))))
        .max_by(|(_, one), (_, other)| one.total_cmp(other));
    if let Some((best, rate)) = best
        && measured
            .iter()
            .any(|measured| matches!(measured.variant, Variant::Fixed { .. }))
    {
        let ratios: Vec<f64> = rates(policy).iter().map(|policy| policy / rate).collect();
        rows.row_with_goal(
            format!("policy / best fixed ({})", best.name()),
            RATE_RATIO,
            &ratios,
            OF_BEST,
        );
    }
}
