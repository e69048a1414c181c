//! The description of the API against the code.

use crate::manage::example::status;
use crate::manage::exchange::OPENAPI;
use crate::manage::routes::ROUTES;
use crate::manage::{
    CreatedToken, DroppedModel, LoadedModel, Member, Members, ModelRequest, RevokedToken, Role, TokenRequest,
    Viewer,
};
use serde_json::Value;

#[test]
fn every_path_is_described_and_nothing_else() {
    let described: Value = serde_json::from_str(OPENAPI).unwrap();
    let paths = described["paths"].as_object().unwrap();
    let mut told: Vec<String> = paths
        .iter()
        .flat_map(|(path, methods)| {
            let methods = methods.as_object().unwrap().keys();
            methods.map(move |method| format!("{} {path}", method.to_uppercase()))
        })
        .collect();
    let mut served: Vec<String> = ROUTES
        .iter()
        .map(|route| format!("{} {}", route.method, route.path))
        .collect();
    told.sort();
    served.sort();
    assert_eq!(told, served);
    for route in &ROUTES {
        let words = paths[route.path][route.method.to_lowercase()]["description"].as_str();
        let is_owners = words.is_some_and(|words| words.contains("owner_only"));
        assert_eq!(is_owners, route.viewer == Viewer::Owner, "{}", route.path);
    }
}

/// Finds what an object has and its schema has not, or the other way round.
fn compare(described: &Value, schema: &Value, value: &Value, at: &str) {
    let schema = resolve(described, schema);
    match value {
        Value::Object(fields) => {
            let properties = schema["properties"].as_object().unwrap_or_else(|| panic!("{at}"));
            for required in schema["required"].as_array().unwrap() {
                assert!(fields.contains_key(required.as_str().unwrap()), "{at}.{required}");
            }
            for (name, field) in fields {
                let property = properties.get(name).unwrap_or_else(|| panic!("{at}.{name}"));
                compare(described, property, field, &format!("{at}.{name}"));
            }
            assert_eq!(fields.len(), properties.len(), "{at}");
        }
        Value::Array(items) => items
            .iter()
            .for_each(|item| compare(described, &schema["items"], item, at)),
        Value::String(word) => {
            if let Some(words) = schema["enum"].as_array() {
                assert!(words.contains(&word.as_str().into()), "{at}: {word}");
            }
        }
        _ => {}
    }
}

fn resolve<'a>(described: &'a Value, schema: &'a Value) -> &'a Value {
    if let Some(reference) = schema["$ref"].as_str() {
        return described.pointer(reference.trim_start_matches('#')).unwrap();
    }
    match schema["oneOf"].as_array() {
        Some(kinds) => resolve(described, &kinds[0]),
        None => schema,
    }
}

#[test]
fn every_field_is_described() {
    let described: Value = serde_json::from_str(OPENAPI).unwrap();
    let mut status = status();
    status.nodes = vec![status.this.clone()];
    let member = Member {
        id: "ab".repeat(32),
        name: None,
        role: Role::Worker,
        admitted_by: "ab".repeat(32),
        since: 1,
        alive: true,
    };
    let members = Members {
        members: vec![member],
    };
    let wanted = TokenRequest {
        role: Role::Node,
        expires_seconds: None,
        uses: Some(1),
        models: Some(vec!["tiny".into()]),
    };
    let created = CreatedToken {
        id: "ab".into(),
        token: "t".into(),
        role: Role::Client,
        expires_at: None,
    };
    let revoked = RevokedToken { id: "ab".into() };
    let name = String::from("tiny");
    let model = ModelRequest { model: name.clone() };
    let loaded = LoadedModel { name: name.clone() };
    let dropped = DroppedModel { name };
    for (name, value) in [
        ("Status", serde_json::to_value(status).unwrap()),
        ("Members", serde_json::to_value(members).unwrap()),
        ("TokenRequest", serde_json::to_value(wanted).unwrap()),
        ("CreatedToken", serde_json::to_value(created).unwrap()),
        ("RevokedToken", serde_json::to_value(revoked).unwrap()),
        ("ModelRequest", serde_json::to_value(model).unwrap()),
        ("LoadedModel", serde_json::to_value(loaded).unwrap()),
        ("DroppedModel", serde_json::to_value(dropped).unwrap()),
    ] {
        compare(
            &described,
            &described["components"]["schemas"][name],
            &value,
            name,
        );
    }
}
