//! Variants measured in turn, so that what changes on the machine meanwhile meets all of them.

/// Measures each of `variants` once a repetition, in their order: A B A B … Returns what was
/// measured of each repetition, in the same order.
///
/// # Errors
/// The first that `measure` returns.
pub fn in_turn<V: Copy, T, E, const N: usize>(
    variants: [V; N],
    repetitions: usize,
    mut measure: impl FnMut(V, usize) -> Result<T, E>,
) -> Result<Vec<[T; N]>, E> {
    let mut measured = Vec::with_capacity(repetitions);
    for repetition in 0..repetitions {
        let mut round = Vec::with_capacity(N);
        for variant in variants {
            round.push(measure(variant, repetition)?);
        }
        let round = round
            .try_into()
            .unwrap_or_else(|_| unreachable!("one for each variant"));
        measured.push(round);
    }
    Ok(measured)
}
