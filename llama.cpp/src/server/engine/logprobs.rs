//! From logits to log probabilities. Pure.

use crate::llama::Token;

/// The likeliest token; of equals, the first.
pub fn likeliest(logits: &[f32]) -> Token {
    let mut best = (0, f32::NEG_INFINITY);
    // Blocks first: the compiler turns their maximum into vector code, a search with indices not.
    for (block, values) in logits.chunks(256).enumerate() {
        let highest = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        if highest > best.1 {
            let within = values.iter().position(|value| *value == highest).unwrap_or(0);
            best = (block * 256 + within, highest);
        }
    }
    Token::try_from(best.0).unwrap_or(0)
}

/// The log probability of `token` and of the `count` likeliest tokens, likeliest first.
pub fn log_probabilities(logits: &[f32], token: Token, count: usize) -> (f32, Vec<(Token, f32)>) {
    let highest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|logit| f64::from(logit - highest).exp()).sum();
    let log_sum = highest + sum.ln() as f32;
    let own = usize::try_from(token)
        .ok()
        .and_then(|index| logits.get(index))
        .copied()
        .unwrap_or(f32::NEG_INFINITY);

    let count = count.min(logits.len());
    let mut order: Vec<usize> = (0..logits.len()).collect();
    let likelier = |a: &usize, b: &usize| logits[*b].total_cmp(&logits[*a]).then(a.cmp(b));
    if count > 0 {
        order.select_nth_unstable_by(count - 1, likelier);
    }
    order.truncate(count);
    order.sort_unstable_by(likelier);
    let top = order
        .into_iter()
        .map(|index| (Token::try_from(index).unwrap_or(0), logits[index] - log_sum))
        .collect();
    (own - log_sum, top)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn probabilities_add_up_to_one_and_come_in_order(logits in prop::collection::vec(-30.0_f32..30.0, 1..700)) {
            let (own, top) = log_probabilities(&logits, 0, logits.len());
            let sum: f64 = top.iter().map(|(_, logprob)| f64::from(*logprob).exp()).sum();
            prop_assert!((sum - 1.0).abs() < 1e-3);
            prop_assert!(top.windows(2).all(|pair| pair[0].1 >= pair[1].1));
            prop_assert_eq!(top.iter().find(|(token, _)| *token == 0).map(|(_, logprob)| *logprob), Some(own));
            prop_assert_eq!(top[0].0, likeliest(&logits));
        }
    }

    #[test]
    fn of_equals_the_first_is_likeliest() {
        let mut logits = vec![0.0; 1000];
        logits[300] = 5.0;
        logits[700] = 5.0;
        assert_eq!(likeliest(&logits), 300);
        assert_eq!(
            log_probabilities(&logits, 5, 2)
                .1
                .iter()
                .map(|(token, _)| *token)
                .collect::<Vec<_>>(),
            [300, 700]
        );
    }
}
