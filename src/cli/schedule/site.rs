//! What a scheduler tells by HTTP: its board as a page, as metrics and as JSON.

use super::super::http::{Answer, Site};
use super::super::prometheus::CONTENT_TYPE;
use super::shared::Shared;
use super::{metrics, page};

impl Site for Shared {
    const WHAT: &str = "metrics and a status page";
    const PATHS: &str = "/, /metrics and /status.json";

    fn answer(&self, path: &str) -> Option<Answer> {
        let document = || self.document();
        Some(match path {
            "/" => Answer::of("text/html; charset=utf-8", page::html(&document())),
            "/style.css" => Answer::of("text/css; charset=utf-8", page::STYLE.to_owned()),
            "/metrics" => Answer::tried(CONTENT_TYPE, metrics::text(&document())),
            "/status.json" => {
                let text = serde_json::to_string(&document()).map(|text| text + "\n");
                Answer::tried("application/json", text)
            }
            _ => return None,
        })
    }
}
