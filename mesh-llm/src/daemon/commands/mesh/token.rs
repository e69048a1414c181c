//! A new token: itself to standard output and nothing else, what to do with it to standard error.

use super::qr::{self, Paper};
use super::{Error, Out, date};
use crate::daemon::report::Reporter;
use crate::manage::{CreatedToken, Role};

/// Shows a token; with `draws`, for cameras, too.
pub(super) fn show(created: &CreatedToken, draws: bool, out: Out, reporter: &Reporter) -> Result<(), Error> {
    out.text(&format!("{}\n", created.token))?;
    if draws {
        let paper = match reporter.is_terminal() {
            true => Paper::Terminal,
            false => Paper::File,
        };
        reporter.note(&qr::draw(&created.token, paper).unwrap_or_else(|| {
            "the token is too long for a QR code: fewer models make it shorter".to_owned()
        }));
    }
    reporter.note(&usage(created));
    Ok(())
}

/// What to do with it.
fn usage(created: &CreatedToken) -> String {
    let until = match created.expires_at {
        None => "for ever".to_owned(),
        Some(time) => date(time).map_or("for ever".to_owned(), |date| format!("until {date}")),
    };
    let flag = match created.role {
        Role::Client => " --client",
        Role::Node | Role::Worker => "",
    };
    format!(
        "whoever has this token can join as {role}, {until}: keep it as you keep a password\n  \
         mesh-llm{flag} --join -                    on the other machine, and paste it there\n  \
         mesh-llm token revoke {id}    lets nobody in by it any more",
        role = created.role,
        id = created.id,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_step_is_told_without_the_token() {
        let mut created = CreatedToken {
            id: "0123".into(),
            token: "the-token".into(),
            role: Role::Client,
            expires_at: Some(86_400),
        };
        let told = usage(&created);
        assert!(
            told.contains("as client, until 1970-01-02") && told.contains("mesh-llm --client --join -"),
            "{told}"
        );
        assert!(
            told.contains("token revoke 0123") && !told.contains("the-token"),
            "{told}"
        );
        created.expires_at = None;
        assert!(usage(&created).contains("for ever"));
    }
}
