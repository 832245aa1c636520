//! Reads the profile that dhat writes: how much was alive when, and where in the program it was asked for.

use std::collections::HashMap;

use serde::Deserialize;

/// Crates whose frames say how something is allocated and not by whom.
const LIBRARY: [&str; 7] = ["alloc", "core", "std", "hashbrown", "dhat", "shockwave_alloc", "__rustc"];
/// The crate of the server.
const PROGRAM: &str = "heap_server";

/// Blocks and bytes of the system heap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// Blocks.
    pub blocks: u64,
    /// Bytes.
    pub bytes: u64,
}

/// What one profile says.
#[derive(Debug)]
pub struct Profile {
    /// Over the whole run.
    pub total: Amount,
    /// When most bytes were alive.
    pub peak: Amount,
    /// Alive when the profiler ended.
    pub exit: Amount,
    /// Who asked, the most bytes first.
    pub sites: Vec<Site>,
}

/// A place in the program and what it asked for.
#[derive(Debug, PartialEq, Eq)]
pub struct Site {
    /// The innermost function that is not the standard library's, with file and line.
    pub function: String,
    /// The function of the server that called it; empty if it is the server's own or the backtrace does not reach one.
    pub caller: String,
    /// Over the whole run.
    pub total: Amount,
}

/// dhat's file, as far as it is read here.
#[derive(Deserialize)]
struct File {
    pps: Vec<Point>,
    ftbl: Vec<String>,
}

/// A "program point": all that was asked for under one backtrace. `fs` are indices into `ftbl`, innermost first.
#[derive(Deserialize)]
struct Point {
    tb: u64,
    tbk: u64,
    gb: u64,
    gbk: u64,
    eb: u64,
    ebk: u64,
    fs: Vec<usize>,
}

impl Amount {
    fn add(&mut self, blocks: u64, bytes: u64) {
        self.blocks += blocks;
        self.bytes += bytes;
    }
}

impl Profile {
    /// Reads the text of a profile.
    pub fn parse(text: &str) -> Result<Profile, String> {
        let file: File =
            serde_json::from_str(text).map_err(|error| format!("no profile of dhat: {error}"))?;
        let mut profile = Profile {
            total: Amount::default(),
            peak: Amount::default(),
            exit: Amount::default(),
            sites: Vec::new(),
        };
        let mut sites: HashMap<(String, String), Amount> = HashMap::new();
        for point in &file.pps {
            profile.total.add(point.tbk, point.tb);
            profile.peak.add(point.gbk, point.gb);
            profile.exit.add(point.ebk, point.eb);
            let frames: Vec<Frame> =
                point.fs.iter().filter_map(|index| Frame::parse(file.ftbl.get(*index)?)).collect();
            sites.entry(site(&frames)).or_default().add(point.tbk, point.tb);
        }
        profile.sites =
            sites.into_iter().map(|((function, caller), total)| Site { function, caller, total }).collect();
        profile.sites.sort_by(|one, other| {
            (other.total.bytes, &one.function, &one.caller).cmp(&(
                one.total.bytes,
                &other.function,
                &other.caller,
            ))
        });
        Ok(profile)
    }
}

/// Function and caller of a backtrace.
fn site(frames: &[Frame]) -> (String, String) {
    let innermost = frames.iter().position(|frame| !LIBRARY.contains(&frame.krate()));
    let Some(at) = innermost else { return ("(the standard library alone)".to_owned(), String::new()) };
    let caller = match frames[at].krate() {
        PROGRAM => None,
        _ => frames[at..].iter().find(|frame| frame.krate() == PROGRAM),
    };
    (frames[at].shown(), caller.map(Frame::shown).unwrap_or_default())
}

/// One line of the frame table: `0x55ff: function (file:line:column)`.
#[derive(Debug, Clone, Copy)]
struct Frame<'a> {
    function: &'a str,
    /// File and line.
    place: &'a str,
}

impl<'a> Frame<'a> {
    fn parse(line: &'a str) -> Option<Frame<'a>> {
        let (_, rest) = line.split_once(": ")?;
        let (function, place) = rest.rsplit_once(" (")?;
        let (place, _column) = place.strip_suffix(')')?.rsplit_once(':')?;
        Some(Frame { function, place })
    }

    /// The crate that the function is in. For `<T as trait>::function` it is that of the type, and that of the trait if
    /// the type has none: a parameter or a primitive.
    fn krate(&self) -> &'a str {
        let mut path = self.function.trim_start_matches(['<', '&', '[', '(']);
        if let Some((of, rest)) = path.split_once(" as ")
            && !of.contains("::")
        {
            path = rest;
        }
        let path = path.trim_start_matches("mut ").trim_start_matches("dyn ");
        path.split_once("::").map_or(path, |(krate, _)| krate)
    }

    /// The function without its crate's path of modules, file and line.
    fn shown(&self) -> String {
        let file = self.place.rsplit_once('/').map_or(self.place, |(_, file)| file);
        // Only the server's own files are unique by their last name.
        let place = if self.krate() == PROGRAM { file } else { self.place };
        let function = self.function.replace("{{closure}}", "{}");
        format!("{} ({place})", shortened(&function, 64))
    }
}

/// `text` in at most `length` characters.
fn shortened(text: &str, length: usize) -> String {
    match text.char_indices().nth(length) {
        None => text.to_owned(),
        Some(_) => text.chars().take(length - 1).chain(['…']).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crates_of_frames() {
        for (function, krate) in [
            ("alloc::vec::Vec<T>::with_capacity", "alloc"),
            ("<alloc::string::String as core::clone::Clone>::clone", "alloc"),
            ("<T as alloc::slice::<impl [T]>::to_vec_in::ConvertVec>::to_vec", "alloc"),
            ("<heap_server::store::NewUser as core::clone::Clone>::clone", "heap_server"),
            ("<&mut serde_json::de::Deserializer<R> as serde::Deserializer>::x", "serde_json"),
            ("heap_server::api::hello::{{closure}}", "heap_server"),
            ("__libc_start_main", "__libc_start_main"),
        ] {
            assert_eq!(Frame { function, place: "a.rs:1" }.krate(), krate, "{function}");
        }
    }

    #[test]
    fn sums_up_by_site() {
        let text = r#"{"dhatFileVersion":2,"ftbl":["[root]",
            "0x1: alloc::vec::Vec<T>::grow (src/vec/mod.rs:10:5)",
            "0x2: bytes::bytes_mut::BytesMut::reserve (bytes-1.0/src/bytes_mut.rs:20:9)",
            "0x3: heap_server::api::hello::{{closure}} (examples/server/api.rs:41:9)",
            "0x4: heap_server::api::hello::{{closure}} (examples/server/api.rs:41:17)"],
            "pps":[{"tb":100,"tbk":4,"tl":9,"gb":10,"gbk":1,"eb":0,"ebk":0,"fs":[1,2,3]},
                   {"tb":30,"tbk":2,"tl":9,"gb":30,"gbk":2,"eb":5,"ebk":1,"fs":[1,2,4]},
                   {"tb":500,"tbk":1,"tl":9,"gb":0,"gbk":0,"eb":0,"ebk":0,"fs":[1,4]},
                   {"tb":1,"tbk":1,"tl":9,"gb":0,"gbk":0,"eb":0,"ebk":0,"fs":[1]}]}"#;
        let profile = Profile::parse(text).unwrap();
        assert_eq!(profile.total, Amount { blocks: 8, bytes: 631 });
        assert_eq!(profile.peak, Amount { blocks: 3, bytes: 40 });
        assert_eq!(profile.exit, Amount { blocks: 1, bytes: 5 });
        let sites: Vec<_> = profile
            .sites
            .iter()
            .map(|site| (site.function.as_str(), site.caller.as_str(), site.total.bytes))
            .collect();
        let hello = "heap_server::api::hello::{} (api.rs:41)";
        let reserve = "bytes::bytes_mut::BytesMut::reserve (bytes-1.0/src/bytes_mut.rs:20)";
        assert_eq!(sites, [(hello, "", 500), (reserve, hello, 130), ("(the standard library alone)", "", 1)]);
    }

    #[test]
    fn what_is_no_profile_is_said() {
        assert!(Profile::parse("").unwrap_err().starts_with("no profile of dhat"));
    }
}
