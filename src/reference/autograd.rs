//! libtorch's autograd layer, which takes a fifth of the time of small operators also where no gradient is wanted.

use std::marker::PhantomData;

/// Of the layers of libtorch that this thread's calls pass through; see autograd.cpp.
#[repr(C)]
#[derive(Clone, Copy)]
struct Keys {
    included: u64,
    excluded: u64,
}

unsafe extern "C" {
    safe fn graphsmith_below_autograd() -> Keys;
    safe fn graphsmith_with_autograd() -> Keys;
    safe fn graphsmith_restore(keys: Keys);
}

/// What was in force before; again so when it is dropped, on the thread that it was made on.
pub struct Layers(Keys, PhantomData<*const ()>);

/// From now on this thread calls the operators themselves, of which nothing is recorded.
pub fn without() -> Layers {
    Layers(graphsmith_below_autograd(), PhantomData)
}

/// `work` with gradients.
pub fn with<T>(work: impl FnOnce() -> T) -> T {
    let _layers = Layers(graphsmith_with_autograd(), PhantomData);
    tch::with_grad(work)
}

impl Drop for Layers {
    fn drop(&mut self) {
        graphsmith_restore(self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Kind, Tensor};

    #[test]
    fn gradients_where_they_are_wanted() {
        let _no_grad = crate::reference::init();
        let factor = Tensor::from_slice(&[1.0f64, 2.0]) * 3.0;
        let gradient = || {
            let x = Tensor::from_slice(&[5.0f64, 7.0]).set_requires_grad(true);
            let y = (&x * &x * &factor).sum(Kind::Double);
            y.requires_grad().then(|| Tensor::run_backward(&[y], &[&x], false, false).remove(0))
        };
        assert!(gradient().is_none());
        assert_eq!(with(gradient), Some(Tensor::from_slice(&[30.0f64, 84.0])));
        assert!(gradient().is_none());
        let kept = with(|| with(gradient).is_some() && gradient().is_some());
        assert!(kept, "the outer work goes on with gradients");
    }
}
