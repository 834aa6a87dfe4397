//! A program's symbols by address, their names left in the file.

use std::ops::Range;
use std::sync::Arc;

use object::{Object as _, SymbolMap, SymbolMapEntry};

use crate::sys::map::MappedFile;

/// The symbols of a mapped file.
pub(super) struct SymbolTable {
    map: Arc<MappedFile>,
    symbols: SymbolMap<Symbol>,
}

struct Symbol {
    address: u64,
    size: u64,
    /// Where its name is in the file.
    name: Range<usize>,
}

impl SymbolMapEntry for Symbol {
    fn address(&self) -> u64 {
        self.address
    }

    fn size(&self) -> u64 {
        self.size
    }
}

impl SymbolTable {
    /// Those of a file.
    ///
    /// # Errors
    /// What is no object file.
    pub(super) fn of(map: &Arc<MappedFile>) -> object::Result<Self> {
        let bytes: &[u8] = MappedFile::as_ref(map);
        let names = object::File::parse(bytes)?.symbol_map();
        let of = |symbol: &object::SymbolMapName<'_>| {
            let start = symbol.name().as_ptr().addr().checked_sub(bytes.as_ptr().addr())?;
            let name = start..start + symbol.name().len();
            Some(Symbol { address: symbol.address(), size: symbol.size(), name })
        };
        let symbols = SymbolMap::new(names.symbols().iter().filter_map(of).collect());
        Ok(Self { map: Arc::clone(map), symbols })
    }

    /// The name of the symbol around an address.
    pub(super) fn around(&self, address: u64) -> Option<&str> {
        let symbol = self.symbols.containing(address)?;
        let bytes: &[u8] = MappedFile::as_ref(&self.map);
        std::str::from_utf8(bytes.get(symbol.name.clone())?).ok()
    }
}
