//! The data that server and load agree on, so that each answer can be compared byte by byte.

use serde::{Deserialize, Serialize};

/// Users that the store has from the start, with the ids `1..=SEEDED_USERS`.
pub const SEEDED_USERS: u64 = 2_000;
/// Different profiles there are; a user's `variant` says which one it has.
pub const VARIANTS: u64 = 64;
/// Users in one answer of the list.
pub const PAGE: usize = 50;
/// Headers that `/headers` is sent, and answers.
pub const HEADERS: usize = 32;
/// Bytes of an upload's body.
pub const UPLOAD_BYTES: usize = 64 * 1024;
/// Bytes of a download's body.
pub const DOWNLOAD_BYTES: usize = 100 * 1024;

/// Where somebody lives.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Address {
    street: String,
    city: String,
    postcode: String,
    country: String,
}

/// What is known about a user: some twenty blocks of 8 to 200 bytes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Profile {
    name: String,
    email: String,
    phone: Option<String>,
    address: Address,
    roles: Vec<String>,
    tags: Vec<String>,
    bio: String,
}

const FIRST: [&str; 8] = ["Ada", "Grace", "Barbara", "Edsger", "Alan", "Margaret", "Donald", "Radia"];
const LAST: [&str; 8] =
    ["Lovelace", "Hopper", "Liskov", "Dijkstra", "Turing", "Hamilton", "Knuth", "Perlman"];
const CITY: [&str; 8] = ["Vienna", "Oslo", "Porto", "Ghent", "Turin", "Graz", "Bergen", "Lyon"];
const TAG: [&str; 8] =
    ["systems", "compilers", "networks", "proofs", "type theory", "graphics", "storage", "real time"];

/// The profile of a variant.
pub fn profile(variant: u64) -> Profile {
    let pick = |words: &[&str; 8], by: u64| words[(by % 8) as usize].to_owned();
    let (first, last) = (pick(&FIRST, variant), pick(&LAST, variant / 8));
    Profile {
        email: format!("{}.{}.{variant}@example.org", first.to_lowercase(), last.to_lowercase()),
        phone: (!variant.is_multiple_of(3)).then(|| format!("+43 1 {:07}", 5_550_000 + variant)),
        address: Address {
            street: format!("{} Street {}", pick(&LAST, variant + 3), 1 + variant % 90),
            city: pick(&CITY, variant),
            postcode: format!("{:05}", 10_000 + variant * 7),
            country: "Wonderland".to_owned(),
        },
        roles: (0..1 + variant % 3).map(|role| format!("role-{role}")).collect(),
        tags: (0..4 + variant % 5).map(|tag| pick(&TAG, variant + tag)).collect(),
        bio: format!("{first} {last} works on {}. ", pick(&TAG, variant)).repeat(2 + (variant % 4) as usize),
        name: format!("{first} {last}"),
    }
}

/// Name and value of header `index` of a request to `/headers`.
pub fn header(index: usize) -> (String, String) {
    let padding = "0123456789abcdef".repeat(index % 4);
    (format!("x-sample-{index:02}"), format!("value-{index}-{padding}"))
}

/// The body of an upload: a log of lines that differ in length.
pub fn upload() -> Vec<u8> {
    let mut body = String::with_capacity(UPLOAD_BYTES + 128);
    let mut line = 0;
    while body.len() < UPLOAD_BYTES {
        body.push_str(&format!("{line:06} level=info event=login city={} ", CITY[line % 8]));
        body.push_str(TAG[line % 7]);
        body.push('\n');
        line += 1;
    }
    body.truncate(UPLOAD_BYTES);
    body.into_bytes()
}

/// What the server says about an upload.
#[derive(Debug, Serialize)]
pub struct Summary {
    bytes: usize,
    lines: usize,
    hash: String,
}

/// Length, lines and hash of an upload.
pub fn summarize(body: &[u8]) -> Summary {
    Summary {
        bytes: body.len(),
        lines: body.iter().filter(|&&byte| byte == b'\n').count(),
        hash: format!("{:016x}", hash(body)),
    }
}

/// The text of a download. It grows as texts in handlers do: from empty, by pushing.
pub fn download() -> String {
    let mut text = String::new();
    for line in (0_usize..).map(|number| TAG[number % 8]) {
        if text.len() >= DOWNLOAD_BYTES {
            break;
        }
        text.push_str("report: one more line of the download, about ");
        text.push_str(line);
        text.push('\n');
    }
    text.truncate(DOWNLOAD_BYTES);
    text
}

/// A hash of eight bytes at a time. It costs little, so that the upload measures memory rather than
/// arithmetic.
fn hash(bytes: &[u8]) -> u64 {
    // 2^64 divided by the golden ratio: an odd number with no structure in its bits.
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
    let mix = |state: u64, word: u64| (state ^ word).wrapping_mul(FACTOR).rotate_left(29);
    let (words, rest) = bytes.as_chunks::<8>();
    let state = words.iter().fold(bytes.len() as u64, |state, word| mix(state, u64::from_le_bytes(*word)));
    rest.iter().fold(state, |state, &byte| mix(state, u64::from(byte)))
}
