//! `POST /v1/rerank`, in the form that Jina's and Cohere's APIs share.

use std::cmp::Reverse;

use serde::{Deserialize, Serialize};

use super::{
    ApiError,
    json::{self, Alternative, Bounded, Object, TextOr},
    limits,
    range::integer,
};

/// A checked request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RerankRequest {
    /// The model; none is the one that there is.
    pub model: Option<String>,
    /// What the documents are to answer.
    pub query: String,
    /// At least one.
    pub documents: Vec<String>,
    /// How many of them are wanted; none is all.
    pub top_n: Option<usize>,
    /// Whether the answer repeats them.
    pub return_documents: bool,
    /// Cut documents that are longer than the model takes, in place of refusing them.
    pub truncate: bool,
}

#[derive(Debug, Deserialize)]
struct Fields {
    model: Option<String>,
    query: Option<String>,
    documents: Option<Bounded<TextOr<Object<DocumentFields>>, { limits::INPUTS }>>,
    top_n: Option<i64>,
    return_documents: Option<bool>,
    truncate: Option<bool>,
}

#[derive(Debug, Deserialize)]
struct DocumentFields {
    text: Option<String>,
}

impl Alternative for Object<DocumentFields> {
    const EXPECTED: &'static str = "a string or an object with a text";
}

/// Reads and checks a request.
pub fn parse(body: &[u8]) -> Result<RerankRequest, ApiError> {
    let fields: Fields = json::from_slice(body)?;
    let query = fields.query.ok_or_else(|| ApiError::missing("query"))?;
    let Bounded(documents) = fields.documents.ok_or_else(|| ApiError::missing("documents"))?;
    if documents.is_empty() {
        return Err(ApiError::value(
            "documents",
            "documents is empty; send at least one",
        ));
    }
    let text = |(index, document)| match document {
        TextOr::Text(text) => Ok(text),
        TextOr::Other(Object(DocumentFields { text: Some(text) })) => Ok(text),
        TextOr::Other(_) => Err(ApiError::missing(format!("documents[{index}].text"))),
    };
    Ok(RerankRequest {
        model: fields.model.filter(|model| !model.is_empty()),
        query,
        documents: documents
            .into_iter()
            .enumerate()
            .map(text)
            .collect::<Result<_, _>>()?,
        top_n: integer("top_n", fields.top_n, 1..=i64::MAX)?,
        return_documents: fields.return_documents.unwrap_or(false),
        truncate: fields.truncate.unwrap_or(true),
    })
}

/// The answer.
#[derive(Debug, Serialize)]
pub struct RerankResponse<'a> {
    id: &'a str,
    object: &'static str,
    model: &'a str,
    results: Vec<RerankResult>,
    usage: RerankUsage,
}

/// A document's place.
#[derive(Debug, PartialEq, Serialize)]
pub struct RerankResult {
    /// Which document of the request.
    pub index: usize,
    /// How well it answers the query, from 0 to 1.
    pub relevance_score: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    document: Option<Document>,
}

#[derive(Debug, PartialEq, Serialize)]
struct Document {
    text: String,
}

#[derive(Debug, Serialize)]
struct RerankUsage {
    prompt_tokens: u64,
    total_tokens: u64,
}

impl<'a> RerankResponse<'a> {
    /// The answer to a request, from the scores of its documents.
    pub fn new(
        id: &'a str,
        model: &'a str,
        request: RerankRequest,
        scores: &[f32],
        prompt_tokens: u64,
    ) -> Self {
        RerankResponse {
            id,
            object: "list",
            model,
            results: ranked(request, scores),
            usage: RerankUsage {
                prompt_tokens,
                total_tokens: prompt_tokens,
            },
        }
    }
}

/// The documents that are wanted, best first; of equals, the one that came first.
fn ranked(request: RerankRequest, scores: &[f32]) -> Vec<RerankResult> {
    let wanted = request.top_n.unwrap_or(usize::MAX);
    let mut results: Vec<RerankResult> = request
        .documents
        .into_iter()
        .zip(scores)
        .enumerate()
        .map(|(index, (text, &relevance_score))| RerankResult {
            index,
            relevance_score,
            document: request.return_documents.then_some(Document { text }),
        })
        .collect();
    // Scores are from 0 to 1, and such numbers are in the order of their bits.
    results.sort_by_key(|result| Reverse(result.relevance_score.to_bits()));
    results.truncate(wanted);
    results
}

/// A model's template for a pair, with query and document in their places. Either may contain the marks of
/// these places.
pub fn fill(template: &str, query: &str, document: &str) -> String {
    let parts: Vec<String> = template
        .split("{document}")
        .map(|part| part.replace("{query}", query))
        .collect();
    parts.join(document)
}

/// A score from 0 to 1, from what the model computes for a pair: a probability where it ends in a softmax,
/// or else the logit of one.
pub fn relevance(output: f32, is_probability: bool) -> f32 {
    let score = if is_probability {
        output
    } else {
        (1.0 / (1.0 + (-f64::from(output)).exp())) as f32
    };
    // What is no number is no answer to anything.
    if score.is_nan() {
        0.0
    } else {
        score.clamp(0.0, 1.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(body: &str) -> Result<RerankRequest, ApiError> {
        super::parse(body.as_bytes())
    }

    #[test]
    fn documents_are_texts_in_either_form() {
        let request =
            parse(r#"{"model":"m","query":"q","documents":["a",{"text":"b","title":"t"}],"top_n":1}"#)
                .unwrap();
        assert_eq!(request.documents, ["a", "b"]);
        assert_eq!((request.top_n, request.return_documents), (Some(1), false));
        assert!(request.truncate);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (body, param) in [
            (r#"{"documents":["a"]}"#, "query"),
            (r#"{"query":"q"}"#, "documents"),
            (r#"{"query":"q","documents":[]}"#, "documents"),
            (r#"{"query":"q","documents":"a"}"#, "documents"),
            (r#"{"query":"q","documents":["a",5]}"#, "documents[1]"),
            (r#"{"query":"q","documents":[["a"]]}"#, "documents[0]"),
            (
                r#"{"query":"q","documents":[{"title":"a"}]}"#,
                "documents[0].text",
            ),
            (r#"{"query":"q","documents":["a"],"top_n":0}"#, "top_n"),
            (r#"{"query":5,"documents":["a"]}"#, "query"),
            (
                r#"{"query":"q","documents":["a"],"return_documents":1}"#,
                "return_documents",
            ),
        ] {
            assert_eq!(parse(body).unwrap_err().param.as_deref(), Some(param), "{body}");
        }
    }

    #[test]
    fn the_best_come_first() {
        let request =
            parse(r#"{"query":"q","documents":["a","b","c","d"],"top_n":3,"return_documents":true}"#)
                .unwrap();
        let response = RerankResponse::new("rerank-1", "m", request, &[0.25, 0.5, 0.125, 0.5], 9);
        assert_eq!(
            serde_json::to_string(&response).unwrap(),
            r#"{"id":"rerank-1","object":"list","model":"m","results":[{"index":1,"relevance_score":0.5,"document":{"text":"b"}},{"index":3,"relevance_score":0.5,"document":{"text":"d"}},{"index":0,"relevance_score":0.25,"document":{"text":"a"}}],"usage":{"prompt_tokens":9,"total_tokens":9}}"#
        );
    }

    #[test]
    fn a_template_is_filled_once() {
        assert_eq!(fill("Q: {query}\nD: {document}.", "a", "b"), "Q: a\nD: b.");
        assert_eq!(
            fill("{query}|{document}", "{document}", "{query}"),
            "{document}|{query}"
        );
    }

    #[test]
    fn scores_are_probabilities() {
        assert_eq!(relevance(0.0, false), 0.5);
        assert_eq!(relevance(0.7, true), 0.7);
        assert_eq!(relevance(f32::NAN, false), 0.0);
    }

    proptest! {
        #[test]
        fn a_larger_logit_is_never_a_lower_score(one in any::<f32>(), other in any::<f32>()) {
            let (low, high) = (relevance(one.min(other), false), relevance(one.max(other), false));
            prop_assert!((0.0..=1.0).contains(&low) && low <= high);
        }

        #[test]
        fn results_are_sorted_and_none_comes_twice(scores in prop::collection::vec(0f32..=1.0, 1..30)) {
            let documents: Vec<String> = scores.iter().map(|_| "a".into()).collect();
            let body = serde_json::json!({"query": "q", "documents": documents}).to_string();
            let results = ranked(parse(&body).unwrap(), &scores);
            prop_assert!(results.is_sorted_by(|a, b| a.relevance_score >= b.relevance_score));
            let mut indices: Vec<usize> = results.iter().map(|result| result.index).collect();
            indices.sort_unstable();
            prop_assert_eq!(indices, (0..scores.len()).collect::<Vec<_>>());
            prop_assert!(results.iter().all(|result| result.relevance_score == scores[result.index]));
        }
    }
}
