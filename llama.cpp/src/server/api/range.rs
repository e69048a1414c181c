//! Numbers that must lie in a range.

use std::ops::RangeInclusive;

use super::ApiError;

/// The number, or the default where there is none.
pub(super) fn number(
    param: &str,
    value: Option<f64>,
    default: f32,
    range: RangeInclusive<f64>,
) -> Result<f32, ApiError> {
    match value {
        None => Ok(default),
        Some(value) if range.contains(&value) => Ok(value as f32),
        Some(value) => Err(ApiError::value(
            param,
            format!(
                "{param} is {value}, but must be from {} to {}",
                range.start(),
                range.end()
            ),
        )),
    }
}

/// The integer, if there is one.
pub(super) fn integer<T: TryFrom<i64>>(
    param: &str,
    value: Option<i64>,
    range: RangeInclusive<i64>,
) -> Result<Option<T>, ApiError> {
    let Some(value) = value else { return Ok(None) };
    let outside = || {
        let bounds = match (*range.start(), *range.end()) {
            (low, i64::MAX) => format!("at least {low}"),
            (low, high) => format!("from {low} to {high}"),
        };
        ApiError::value(param, format!("{param} is {value}, but must be {bounds}"))
    };
    if !range.contains(&value) {
        return Err(outside());
    }
    T::try_from(value).map(Some).map_err(|_| outside())
}
