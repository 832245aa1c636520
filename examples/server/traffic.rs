//! The requests of the load in their fixed proportion, and what each answer has to be.

use std::io::Write;
use std::sync::Arc;

use crate::client::Response;
use crate::sample::{self, HEADERS, PAGE, SEEDED_USERS, VARIANTS};
use crate::store::NewUser;

/// A kind of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Endpoint {
    Hello,
    User,
    Page,
    Newest,
    Create,
    Update,
    Headers,
    Upload,
    Download,
}

/// Requests of each kind in every hundred.
const PROPORTION: [(Endpoint, usize); 9] = [
    (Endpoint::Hello, 20),
    (Endpoint::User, 30),
    (Endpoint::Page, 6),
    (Endpoint::Newest, 4),
    (Endpoint::Create, 8),
    (Endpoint::Update, 8),
    (Endpoint::Headers, 12),
    (Endpoint::Upload, 6),
    (Endpoint::Download, 6),
];
const CYCLE: usize = 100;

/// All that can be prepared once for all connections.
pub struct Traffic {
    order: [Endpoint; CYCLE],
    /// `NewUser` as JSON, by variant.
    users: Vec<Vec<u8>>,
    hello: Fixed,
    newest: Vec<u8>,
    headers: Fixed,
    echoes: Vec<(String, String)>,
    upload: Fixed,
    download: Fixed,
}

/// A request that never differs, and the body of its answer.
struct Fixed {
    request: Vec<u8>,
    body: Vec<u8>,
}

impl Traffic {
    /// Prepares requests and answers.
    pub fn prepare() -> Self {
        let user = |variant| {
            let user = NewUser { variant, profile: sample::profile(variant) };
            serde_json::to_vec(&user).expect("a profile is strings and lists of strings")
        };
        let fixed = |method: &str, path: &str, headers: &str, body: &[u8], answer: Vec<u8>| {
            let mut request = Vec::new();
            write_request(&mut request, method, format_args!("{path}"), headers, body);
            Fixed { request, body: answer }
        };

        let sent: Vec<_> = (0..HEADERS).map(sample::header).collect();
        let lines: String = sent.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let echoes: Vec<_> =
            sent.into_iter().map(|(name, value)| (name.replace("sample", "echo"), value)).collect();
        let bytes: usize = echoes.iter().map(|(name, value)| name.len() + value.len()).sum();
        let summary = format!(r#"{{"headers":{HEADERS},"bytes":{bytes}}}"#);

        let upload = sample::upload();
        let uploaded =
            serde_json::to_vec(&sample::summarize(&upload)).expect("a summary is numbers and a string");
        Self {
            order: spread(),
            users: (0..VARIANTS).map(user).collect(),
            hello: fixed("GET", "/hello", "", b"", b"Hello from Shockwave!\n".to_vec()),
            newest: fixed("GET", "/users", "", b"", Vec::new()).request,
            headers: fixed("GET", "/headers", &lines, b"", summary.into_bytes()),
            echoes,
            upload: fixed("POST", "/upload", "", &upload, uploaded),
            download: fixed("GET", "/download", "", b"", sample::download().into_bytes()),
        }
    }
}

/// The kinds in their proportion, each spread over the whole cycle.
fn spread() -> [Endpoint; CYCLE] {
    // A step that shares no divisor with the length visits every place once.
    const STEP: usize = 37;
    let mut order = [Endpoint::Hello; CYCLE];
    let kinds = PROPORTION.iter().flat_map(|&(endpoint, count)| std::iter::repeat_n(endpoint, count));
    for (place, endpoint) in kinds.enumerate() {
        order[place * STEP % CYCLE] = endpoint;
    }
    order
}

const _: () = {
    let (mut kind, mut sum) = (0, 0);
    while kind < PROPORTION.len() {
        sum += PROPORTION[kind].1;
        kind += 1;
    }
    assert!(sum == CYCLE, "the proportions are parts of a cycle");
};

/// The requests of one connection, one after the other.
pub struct Script {
    traffic: Arc<Traffic>,
    place: usize,
    random: u64,
    request: Vec<u8>,
}

/// One request of a script. `id` and `variant` count where the endpoint has them.
#[derive(Clone, Copy)]
pub struct Step {
    endpoint: Endpoint,
    id: u64,
    variant: u64,
}

impl Script {
    /// The script of connection number `connection`: each starts at another place of the cycle.
    pub fn new(traffic: Arc<Traffic>, connection: usize) -> Self {
        // Zero is the one state that the generator never leaves.
        let random = (connection as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        Self { traffic, place: connection * 7 % CYCLE, random, request: Vec::with_capacity(4096) }
    }

    /// Decides what comes next.
    pub fn advance(&mut self) -> Step {
        let endpoint = self.traffic.order[self.place];
        self.place = (self.place + 1) % CYCLE;
        // xorshift64 (Marsaglia, 2003).
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let ids = match endpoint {
            // Every user of the page is one of the first, so that its id is known.
            Endpoint::Page => SEEDED_USERS - PAGE as u64,
            _ => SEEDED_USERS,
        };
        Step { endpoint, id: 1 + (self.random >> 16) % ids, variant: (self.random >> 48) % VARIANTS }
    }

    /// The bytes of a step's request.
    pub fn request(&mut self, step: Step) -> &[u8] {
        let Self { traffic, request, .. } = self;
        let user = &traffic.users[step.variant as usize];
        match step.endpoint {
            Endpoint::Hello => return &traffic.hello.request,
            Endpoint::Newest => return &traffic.newest,
            Endpoint::Headers => return &traffic.headers.request,
            Endpoint::Upload => return &traffic.upload.request,
            Endpoint::Download => return &traffic.download.request,
            Endpoint::User => write_request(request, "GET", format_args!("/users/{}", step.id), "", b""),
            Endpoint::Page => {
                write_request(request, "GET", format_args!("/users?after={}", step.id), "", b"")
            }
            Endpoint::Create => write_request(request, "POST", format_args!("/users"), "", user),
            Endpoint::Update => write_request(request, "PUT", format_args!("/users/{}", step.id), "", user),
        }
        request
    }

    /// Compares the answer to a step with what it has to be.
    ///
    /// # Errors
    /// A sentence that says which request got what.
    pub fn check(&self, step: Step, answer: &Response<'_>) -> Result<(), String> {
        let traffic = &*self.traffic;
        let wanted = if step.endpoint == Endpoint::Create { 201 } else { 200 };
        let body = answer.body;
        let right = answer.status == wanted
            && match step.endpoint {
                Endpoint::Hello => body == traffic.hello.body,
                Endpoint::Upload => body == traffic.upload.body,
                Endpoint::Download => body == traffic.download.body,
                Endpoint::Headers => body == traffic.headers.body && self.are_echoed(answer),
                Endpoint::User => self.is_user(body, |id, _| id == step.id),
                Endpoint::Update => {
                    self.is_user(body, |id, variant| (id, variant) == (step.id, step.variant))
                }
                Endpoint::Create => {
                    self.is_user(body, |id, variant| id > SEEDED_USERS && variant == step.variant)
                }
                Endpoint::Page => self.are_users(body, |place, _, id| id == step.id + 1 + place),
                // Ids are given in order and only the oldest user goes: the newest have no gap.
                Endpoint::Newest => self.are_users(body, |place, first, id| id + place == first),
            };
        if right {
            return Ok(());
        }
        let start = String::from_utf8_lossy(&body[..body.len().min(80)]);
        Err(format!(
            "{:?} (user {}) was answered with status {}, wanted {wanted}, and {} bytes of body: {start:?}",
            step.endpoint,
            step.id,
            answer.status,
            body.len()
        ))
    }

    fn are_echoed(&self, answer: &Response<'_>) -> bool {
        let echoes = answer.headers().filter(|(name, _)| name.starts_with(b"x-echo-"));
        let wanted = self.traffic.echoes.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        echoes.eq(wanted)
    }

    fn is_user(&self, body: &[u8], fits: impl Fn(u64, u64) -> bool) -> bool {
        self.user(body).is_some_and(|(id, variant, rest)| rest.is_empty() && fits(id, variant))
    }

    /// Whether this is a full page of users; `fits` gets place, id of the first and id.
    fn are_users(&self, body: &[u8], fits: impl Fn(u64, u64, u64) -> bool) -> bool {
        let Some(mut rest) = body.strip_prefix(b"[") else { return false };
        let mut first = None;
        for place in 0..PAGE as u64 {
            let Some((id, _, after)) = self.user(rest) else { return false };
            if !fits(place, *first.get_or_insert(id), id) {
                return false;
            }
            rest = after.strip_prefix(b",").unwrap_or(after);
        }
        rest == b"]"
    }

    /// Id and variant of the user that `json` starts with, and what follows. The whole text of the user has
    /// to be the one that its variant has, so that a block which changed while it was stored does not go
    /// unseen.
    fn user<'a>(&self, json: &'a [u8]) -> Option<(u64, u64, &'a [u8])> {
        let (id, rest) = leading_number(json.strip_prefix(b"{\"id\":")?)?;
        let (variant, _) = leading_number(rest.strip_prefix(b",\"variant\":")?)?;
        // Its text without the brace that opens it.
        let wanted = &self.traffic.users.get(variant as usize)?[1..];
        Some((id, variant, rest.strip_prefix(b",")?.strip_prefix(wanted)?))
    }
}

fn leading_number(text: &[u8]) -> Option<(u64, &[u8])> {
    let digits = text.iter().position(|byte| !byte.is_ascii_digit())?;
    let number = str::from_utf8(&text[..digits]).ok()?.parse().ok()?;
    Some((number, &text[digits..]))
}

/// Replaces what `request` holds with a complete request.
fn write_request(
    request: &mut Vec<u8>,
    method: &str,
    path: std::fmt::Arguments<'_>,
    headers: &str,
    body: &[u8],
) {
    request.clear();
    let head = write!(
        request,
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\nuser-agent: load\r\naccept: */*\r\n{headers}"
    );
    let length = match body.len() {
        0 => write!(request, "\r\n"),
        length => write!(request, "content-type: application/json\r\ncontent-length: {length}\r\n\r\n"),
    };
    head.and(length).expect("writing to memory does not fail");
    request.extend_from_slice(body);
}
