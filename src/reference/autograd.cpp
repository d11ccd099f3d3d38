// What tch does not offer: calling operators below libtorch's autograd layer, as at::AutoDispatchBelowADInplaceOrView does
// for a scope. Here the caller keeps what was in force before.
#include <c10/core/DispatchKeySet.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <cstdint>

struct Keys {
  std::uint64_t included;
  std::uint64_t excluded;
};

static Keys exchange(c10::DispatchKeySet included, c10::DispatchKeySet excluded) {
  const auto before = c10::impl::tls_local_dispatch_key_set();
  c10::impl::PODLocalDispatchKeySet keys{};
  keys.set_included(included);
  keys.set_excluded(excluded);
  c10::impl::_force_tls_local_dispatch_key_set(keys);
  return {before.included_.raw_repr(), before.excluded_.raw_repr()};
}

extern "C" Keys graphsmith_below_autograd() {
  const auto now = c10::impl::tls_local_dispatch_key_set();
  return exchange(now.included_.remove(c10::DispatchKey::ADInplaceOrView),
                  now.excluded_ | c10::autograd_dispatch_keyset_with_ADInplaceOrView);
}

extern "C" Keys graphsmith_with_autograd() {
  const auto now = c10::impl::tls_local_dispatch_key_set();
  return exchange(now.included_.add(c10::DispatchKey::ADInplaceOrView),
                  now.excluded_ - c10::autograd_dispatch_keyset_with_ADInplaceOrView);
}

extern "C" void graphsmith_restore(Keys keys) {
  exchange(c10::DispatchKeySet::from_raw_repr(keys.included), c10::DispatchKeySet::from_raw_repr(keys.excluded));
}
