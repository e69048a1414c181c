//! What may not or cannot be downloaded.

use super::super::hub::{self, Door};
use super::super::*;
use super::{Bench, FILE, LENGTH, REPO, at_revision, file};

#[tokio::test]
async fn the_token_is_shown_to_the_hub_only() {
    let mut bench = Bench::new();
    bench.settings.token = Some("hf_good".to_owned());
    bench
        .hub
        .behave(|behaviour| behaviour.token = Some("hf_good".to_owned()));
    bench.hub.repository(REPO, |repository| repository.gated = true);
    bench.succeed(&bench.source()).await;
    std::fs::remove_file(bench.path()).unwrap();
    bench.hub.add_plain("m", bench.bytes.clone());
    bench.succeed(&Source::Url(bench.hub.detour("m"))).await;
    let log = bench.hub.log();
    for logged in &log {
        let expected = (logged.door == Door::Hub).then_some("Bearer hf_good");
        assert_eq!(logged.authorization.as_deref(), expected, "{logged:?}");
    }
    assert!(log.iter().any(|logged| logged.door == Door::Storage));
}

#[tokio::test]
async fn what_may_not_be_read_says_what_to_do() {
    let mut bench = Bench::new();
    bench.hub.behave(|behaviour| {
        behaviour.token = Some("hf_good".to_owned());
        behaviour.stranger = Some("hf_stranger".to_owned());
    });
    bench.hub.repository(REPO, |repository| repository.gated = true);
    let page = format!("{}/{REPO}", bench.hub.endpoint());
    let gated = bench.fail(&bench.source()).await.to_string();
    assert!(
        gated.contains(&format!("licence at {page}")) && gated.contains("set HF_TOKEN to"),
        "{gated}"
    );
    bench.settings.token = Some("hf_stranger".to_owned());
    let gated = bench.fail(&bench.source()).await.to_string();
    assert!(
        gated.contains(&page) && gated.contains("the account that accepted it"),
        "{gated}"
    );
    bench.settings.token = Some("hf_bad".to_owned());
    let bad = bench.fail(&bench.source()).await.to_string();
    assert!(
        bad.contains("does not accept the token") && bad.contains("/settings/tokens"),
        "{bad}"
    );
    assert!(!bad.contains("hf_bad"), "{bad}");
    bench.settings.token = Some("hf\nbad".to_owned());
    assert!(matches!(
        bench.fail(&bench.source()).await,
        Error::BadToken { .. }
    ));
    bench.settings.token = None;
    bench.hub.repository(REPO, |repository| repository.private = true);
    let private = bench.fail(&bench.source()).await.to_string();
    assert!(
        private.contains("no repository maker/model-GGUF") && private.contains("set HF_TOKEN"),
        "{private}"
    );
}

#[tokio::test]
async fn what_does_not_exist_is_answered_with_what_does() {
    let mut bench = Bench::new();
    let error = bench.fail(&file("model-Q5.gguf")).await.to_string();
    assert_eq!(
        error,
        format!("{REPO} has no file model-Q5.gguf at revision main; there is {FILE}, README.md")
    );
    let error = bench.fail(&at_revision(FILE, "v9")).await.to_string();
    assert_eq!(error, format!("{REPO} has no revision v9; there is main, v1"));
    bench.settings.token = Some("hf_good".to_owned());
    bench
        .hub
        .behave(|behaviour| behaviour.token = Some("hf_good".to_owned()));
    let nowhere = Source::HuggingFace {
        repo: "maker/none".to_owned(),
        revision: "main".to_owned(),
        file: FILE.to_owned(),
    };
    let error = bench.fail(&nowhere).await;
    assert!(
        matches!(&error, Error::NoRepository { has_token: true, .. }),
        "{error}"
    );
    let url = bench.hub.add_plain("m", "x").replace("/m", "/none");
    let error = bench.fail(&Source::Url(url.clone())).await.to_string();
    assert!(error.contains(&format!("nothing at {url}")), "{error}");
}

#[tokio::test]
async fn wrong_bytes_and_wrong_lengths_are_thrown_away() {
    let bench = Bench::new();
    bench.hub.behave(|behaviour| behaviour.corrupts = true);
    let error = bench.fail(&bench.source()).await;
    let Error::WrongHash { expected, found, .. } = &error else {
        panic!("{error}")
    };
    assert_eq!(expected.to_string(), hub::sha256(&bench.bytes));
    assert_ne!(expected, found);
    assert!(bench.names().is_empty(), "{:?}", bench.names());
    bench.hub.behave(|behaviour| behaviour.corrupts = false);
    bench.succeed(&bench.source()).await;

    let bench = Bench::new();
    bench.hub.behave(|behaviour| behaviour.false_size = Some(7));
    let error = bench.fail(&bench.source()).await.to_string();
    assert!(
        error.contains(&format!("should have 7 bytes and has {LENGTH}")),
        "{error}"
    );
    assert!(bench.names().is_empty(), "{:?}", bench.names());
}

#[tokio::test]
async fn names_stay_in_the_folder() {
    let bench = Bench::new();
    let (progress, _) = watch::channel(Progress::default());
    for name in ["", "..", "../m.gguf", "/m.gguf", "a/../m.gguf", "a/"] {
        let result = fetch(
            &bench.settings,
            &bench.source(),
            bench.folder.path(),
            name,
            progress.clone(),
        )
        .await;
        assert!(matches!(result, Err(Error::Name { .. })), "{name}: {result:?}");
    }
    let path = fetch(
        &bench.settings,
        &bench.source(),
        bench.folder.path(),
        "Q4/m.gguf",
        progress,
    )
    .await
    .unwrap()
    .path;
    assert_eq!(path, bench.folder.path().join("Q4/m.gguf"));
}
