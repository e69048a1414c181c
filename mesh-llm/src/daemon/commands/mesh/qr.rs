//! A token for the camera of another machine.

use qrcode::render::unicode::Dense1x2;
use qrcode::{EcLevel, QrCode};

/// Draws white squares on black, by ANSI colours where there are some: most terminals are dark, and a
/// code whose light parts are dark is one that cameras do not know.
const WHITE_ON_BLACK: &str = "\x1b[97;40m";
const AS_BEFORE: &str = "\x1b[0m";

/// What the code is drawn on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Paper {
    /// A terminal.
    Terminal,
    /// A file or a pipe.
    File,
}

/// A QR code of these words, two rows of squares in a line; none: they are too many.
pub(super) fn draw(words: &str, paper: Paper) -> Option<String> {
    // A screen is clean: the least correction makes the smallest code.
    let code = QrCode::with_error_correction_level(words, EcLevel::L).ok()?;
    let drawn = code
        .render::<Dense1x2>()
        .dark_color(Dense1x2::Light)
        .light_color(Dense1x2::Dark)
        .build();
    Some(match paper {
        Paper::File => drawn,
        Paper::Terminal => {
            let lines = drawn
                .lines()
                .map(|line| format!("{WHITE_ON_BLACK}{line}{AS_BEFORE}"));
            lines.collect::<Vec<_>>().join("\n")
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_token_is_drawn_and_a_longer_one_is_not() {
        // A usual one, of 300, takes 69 columns.
        let usual = draw(&"x".repeat(300), Paper::File).unwrap();
        assert!(usual.lines().all(|line| line.chars().count() <= 69), "{usual}");
        let drawn = draw(&"x".repeat(500), Paper::File).unwrap();
        let widths: Vec<_> = drawn.lines().map(|line| line.chars().count()).collect();
        assert!(
            widths.iter().all(|width| *width == widths[0]) && widths[0] <= 85,
            "{widths:?}"
        );
        assert!(widths.len() <= 43, "{}", widths.len());
        assert_eq!(draw(&"x".repeat(5000), Paper::File), None);
    }

    #[test]
    fn a_camera_finds_the_light_frame_around_it() {
        let drawn = draw("x", Paper::File).unwrap();
        let first = drawn.lines().next().unwrap();
        // Light squares are those that are drawn.
        assert!(first.chars().all(|c| c == '█'), "{first}");
        let on_terminal = draw("x", Paper::Terminal).unwrap();
        assert!(
            on_terminal
                .lines()
                .all(|line| line.starts_with(WHITE_ON_BLACK) && line.ends_with(AS_BEFORE))
        );
    }
}
