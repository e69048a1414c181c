//! The greatest convex function below some values. Pure.

/// Of `values`, each at its index, the greatest convex function that is nowhere above them, at the same places: the lower
/// hull, found by Andrew's monotone chain.
pub fn below(values: &[f64]) -> Vec<f64> {
    let mut corners: Vec<usize> = Vec::new();
    let slope = |from: usize, to: usize| (values[to] - values[from]) / (to - from) as f64;
    for next in 0..values.len() {
        while let [.., before, last] = corners[..]
            && slope(before, last) >= slope(last, next)
        {
            corners.pop();
        }
        corners.push(next);
    }
    let mut hull = Vec::with_capacity(values.len());
    for corner in corners.windows(2) {
        let (from, to) = (corner[0], corner[1]);
        hull.extend((0..to - from).map(|steps| values[from] + slope(from, to) * steps as f64));
    }
    hull.extend(values.last());
    hull
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_bump_is_cut_off_and_a_hollow_stays() {
        assert_eq!(below(&[0.0, 5.0, 2.0]), [0.0, 1.0, 2.0]);
        assert_eq!(below(&[2.0, 0.0, 2.0]), [2.0, 0.0, 2.0]);
        assert_eq!(below(&[3.0]), [3.0]);
        assert!(below(&[]).is_empty());
    }

    proptest! {
        /// Every place of it is a value or between two that are, and no convex function below is greater there.
        #[test]
        fn it_is_convex_below_and_touches(values in prop::collection::vec(0.0..1.0_f64, 1..40)) {
            let hull = below(&values);
            let near = |one: f64, other: f64| (one - other).abs() < 1e-9;
            for (hull, value) in hull.iter().zip(&values) {
                prop_assert!(*hull <= value + 1e-9);
            }
            for three in hull.windows(3) {
                prop_assert!(three[1] <= (three[0] + three[2]) / 2.0 + 1e-9);
            }
            for at in 1..hull.len().saturating_sub(1) {
                let straight = near(hull[at], (hull[at - 1] + hull[at + 1]) / 2.0);
                prop_assert!(straight || near(hull[at], values[at]));
            }
            prop_assert!(near(hull[0], values[0]) && near(hull[hull.len() - 1], values[values.len() - 1]));
        }
    }
}
