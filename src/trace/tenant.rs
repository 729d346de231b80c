//! Tenants: the value of one configured header, interned to a small number.

use std::collections::HashMap;
use std::sync::Arc;

/// Tenants a process knows at most; a request of one more is refused.
pub const TENANTS_MAX: usize = 1_000;

/// A tenant's number in this process. Never written to disk: records carry the name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TenantId(pub u16);

impl TenantId {
    /// What is learned from all of them; no request has it.
    pub const EVERY: Self = Self(u16::MAX);
}

/// No sender can be called this: names are ASCII.
const EVERY_NAME: &str = "«every tenant»";

/// The names of the tenants seen. Number 0 is the tenant without a name.
#[derive(Debug)]
pub struct Tenants {
    names: Vec<Arc<str>>,
    every: Arc<str>,
    numbers: HashMap<Arc<str>, TenantId>,
}

/// A request came from one tenant more than [`TENANTS_MAX`].
#[derive(Debug, thiserror::Error)]
#[error("more than {TENANTS_MAX} tenants")]
pub struct TooManyTenants;

impl Default for Tenants {
    fn default() -> Self {
        let (nameless, every): (Arc<str>, Arc<str>) = (Arc::from(""), Arc::from(EVERY_NAME));
        let numbers = HashMap::from([(nameless.clone(), TenantId(0)), (every.clone(), TenantId::EVERY)]);
        Self { names: vec![nameless], every, numbers }
    }
}

impl Tenants {
    pub fn get(&self, name: &str) -> Option<TenantId> {
        self.numbers.get(name).copied()
    }

    pub fn intern(&mut self, name: &str) -> Result<TenantId, TooManyTenants> {
        if let Some(known) = self.get(name) {
            return Ok(known);
        }
        if self.names.len() > TENANTS_MAX {
            return Err(TooManyTenants);
        }
        let id = TenantId(self.names.len() as u16);
        let name: Arc<str> = Arc::from(name);
        self.names.push(name.clone());
        self.numbers.insert(name, id);
        Ok(id)
    }

    /// Every tenant that requests had, by number.
    pub fn all(&self) -> impl Iterator<Item = (TenantId, &Arc<str>)> {
        self.names.iter().enumerate().map(|(number, name)| (TenantId(number as u16), name))
    }

    /// The name of a tenant that this table has numbered.
    pub fn name(&self, id: TenantId) -> &Arc<str> {
        if id == TenantId::EVERY { &self.every } else { &self.names[usize::from(id.0)] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nameless_tenant_is_number_zero() {
        assert_eq!(Tenants::default().get(""), Some(TenantId(0)));
    }

    #[test]
    fn every_tenant_has_a_name_that_leads_back() {
        let mut tenants = Tenants::default();
        let name = tenants.name(TenantId::EVERY).clone();
        assert!(!name.is_ascii(), "no header has it");
        assert_eq!(tenants.intern(&name).unwrap(), TenantId::EVERY);
    }

    #[test]
    fn a_thousand_named_tenants_and_not_one_more() {
        let mut tenants = Tenants::default();
        for n in 0..TENANTS_MAX {
            tenants.intern(&format!("t{n}")).unwrap();
        }
        assert!(tenants.intern("one more").is_err());
        assert_eq!(tenants.intern("t0").unwrap(), TenantId(1));
        assert_eq!(&**tenants.name(TenantId(1)), "t0");
    }
}
