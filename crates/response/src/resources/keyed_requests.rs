//! Requests with an `Idempotency-Key`, in the state database.

use wardroom_api::{Answer, KeyState, KeyedRequest};
use wardroom_edge::Problem;
use wardroom_store::{RequestAnswer, RequestRow};

use crate::clock;
use crate::problem_responses::store_problem;
use crate::responder::Responder;

impl Responder {
    pub(super) async fn begin_request(&self, keyed: KeyedRequest) -> Result<KeyState, Problem> {
        let KeyedRequest { caller, key, fingerprint } = keyed;
        let row = RequestRow { fingerprint, worker: self.worker.clone(), answer: None };
        let known = self.store.begin_request(&caller, &key, &row, clock::now()).await.map_err(store_problem)?;
        Ok(match known {
            None => KeyState::New,
            Some(known) if known.fingerprint != row.fingerprint => KeyState::OtherRequest,
            Some(RequestRow { answer: Some(RequestAnswer { status, content_type, body }), .. }) => {
                KeyState::Answered(Answer { status, content_type, body })
            }
            Some(known) if known.worker == self.worker => KeyState::Running,
            Some(_) => KeyState::Unknown,
        })
    }

    pub(super) async fn end_request(&self, keyed: KeyedRequest, answer: Option<Answer>) -> Result<(), Problem> {
        let answer = answer.map(|Answer { status, content_type, body }| RequestAnswer { status, content_type, body });
        self.store.end_request(&keyed.caller, &keyed.key, answer.as_ref()).await.map_err(store_problem)
    }
}
