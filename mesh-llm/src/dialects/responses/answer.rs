//! What the engine answers, read; what the client gets, written.

use super::super::{Answer, Problem, chat, sse};
use super::reply::Reply;

impl Answer for Reply {
    fn content_type(&self) -> &'static str {
        self.events.content_type()
    }

    fn whole(&mut self, answer: &[u8]) -> Result<Vec<u8>, Problem> {
        let completion = serde_json::from_slice(answer)
            .map_err(|error| Problem::engine(format!("the engine's answer cannot be read: {error}")))?;
        self.completion(completion)?;
        self.succeed();
        Ok(self.response.json())
    }

    fn event(&mut self, data: &[u8], out: &mut Vec<u8>) {
        if self.is_over() {
            return;
        }
        let done = match chat::Event::read(data) {
            chat::Event::Chunk(chunk) => self.chunk(chunk),
            chat::Event::Problem(problem) => Err(problem),
        };
        if let Err(problem) = done {
            self.fail(&problem);
        }
        self.flush(out);
    }

    fn keep_alive(&mut self, out: &mut Vec<u8>) {
        if !self.is_over() {
            sse::keep_alive(out);
        }
    }

    fn broken(&mut self, problem: &Problem, out: &mut Vec<u8>) {
        self.fail(problem);
        self.flush(out);
    }

    fn end(&mut self, out: &mut Vec<u8>) {
        self.succeed();
        self.flush(out);
    }
}
