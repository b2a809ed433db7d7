// The real FFT pair of one array in one MKL call each: two handlers of XLA's foreign function interface.
//
// r2c: (*batch, *shape) float32 -> (*batch, *half shape) complex64, no factor. c2r: back, with the factor 1/N, for any half
// spectrum as NumPy defines it. MKL trusts the columns that are their own mirror image to be Hermitian, so c2r makes them so,
// in its input, which the program gives it to overwrite. Descriptors are committed once per shape, batch and thread limit,
// serve both ways, and are kept; MKL allows one committed descriptor to be used by several threads at a time.

#include <complex>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "mkl_dfti.h"
#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

namespace {

struct Failure {
  MKL_LONG status;
};

void Check(MKL_LONG status) {
  if (status != DFTI_NO_ERROR) throw Failure{status};
}

// Row-major strides behind MKL's leading offset.
std::vector<MKL_LONG> Strides(const std::vector<MKL_LONG>& lengths) {
  std::vector<MKL_LONG> strides(lengths.size() + 1, 0);
  MKL_LONG step = 1;
  for (size_t axis = lengths.size(); axis-- > 0; step *= lengths[axis]) strides[axis + 1] = step;
  return strides;
}

MKL_LONG Product(const std::vector<MKL_LONG>& lengths) {
  MKL_LONG product = 1;
  for (MKL_LONG n : lengths) product *= n;
  return product;
}

DFTI_DESCRIPTOR_HANDLE Commit(std::vector<MKL_LONG> real, MKL_LONG batch, MKL_LONG threads) {
  std::vector<MKL_LONG> half = real;
  half.back() = real.back() / 2 + 1;
  const MKL_LONG rank = static_cast<MKL_LONG>(real.size());
  DFTI_DESCRIPTOR_HANDLE handle = nullptr;
  // One length goes by value and several by pointer: the interface is variadic.
  Check(rank == 1 ? DftiCreateDescriptor(&handle, DFTI_SINGLE, DFTI_REAL, rank, real[0])
                  : DftiCreateDescriptor(&handle, DFTI_SINGLE, DFTI_REAL, rank, real.data()));
  try {
    Check(DftiSetValue(handle, DFTI_PLACEMENT, DFTI_NOT_INPLACE));
    Check(DftiSetValue(handle, DFTI_CONJUGATE_EVEN_STORAGE, DFTI_COMPLEX_COMPLEX));
    Check(DftiSetValue(handle, DFTI_FWD_STRIDES, Strides(real).data()));
    Check(DftiSetValue(handle, DFTI_BWD_STRIDES, Strides(half).data()));
    Check(DftiSetValue(handle, DFTI_NUMBER_OF_TRANSFORMS, batch));
    Check(DftiSetValue(handle, DFTI_FWD_DISTANCE, Product(real)));
    Check(DftiSetValue(handle, DFTI_BWD_DISTANCE, Product(half)));
    Check(DftiSetValue(handle, DFTI_BACKWARD_SCALE, 1.0 / static_cast<double>(Product(real))));
    Check(DftiSetValue(handle, DFTI_THREAD_LIMIT, threads));
    Check(DftiCommitDescriptor(handle));
  } catch (const Failure&) {
    DftiFreeDescriptor(&handle);
    throw;
  }
  return handle;
}

// A real array (*batch, *real), whose axes behind the batch are transformed.
struct Layout {
  std::vector<MKL_LONG> real;
  MKL_LONG batch;

  Layout(ffi::Span<const int64_t> dimensions, int64_t rank)
      : real(dimensions.end() - rank, dimensions.end()), batch(Product({dimensions.begin(), dimensions.end() - rank})) {}
};

DFTI_DESCRIPTOR_HANDLE Find(const Layout& layout, int64_t threads) {
  static std::mutex mutex;
  static auto* kept = new std::map<std::vector<MKL_LONG>, DFTI_DESCRIPTOR_HANDLE>();
  std::vector<MKL_LONG> key = layout.real;
  key.insert(key.end(), {layout.batch, static_cast<MKL_LONG>(threads)});
  const std::lock_guard<std::mutex> lock(mutex);
  auto found = kept->find(key);
  if (found == kept->end()) found = kept->emplace(key, Commit(layout.real, layout.batch, threads)).first;
  return found->second;
}

// Index of -k on the leading axes of the half spectrum, lengths as `real`; `index` counts row by row.
int64_t Mirror(int64_t index, const std::vector<MKL_LONG>& real) {
  int64_t mirrored = 0, step = 1;
  for (size_t axis = real.size() - 1; axis-- > 0; step *= real[axis]) {
    const int64_t k = index / step % real[axis];
    mirrored += step * (k == 0 ? 0 : real[axis] - k);
  }
  return mirrored;
}

// The Hermitian part of the columns that are their own mirror image: 0 and, where the last length is even, its half.
void Symmetrise(std::complex<float>* spectrum, const std::vector<MKL_LONG>& real, int64_t batch) {
  const int64_t last = real.back(), width = last / 2 + 1, rows = Product({real.begin(), real.end() - 1});
  const std::vector<int64_t> columns = last % 2 ? std::vector<int64_t>{0} : std::vector<int64_t>{0, last / 2};
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t other = Mirror(row, real);
    if (other < row) continue;
    for (int64_t b = 0; b < batch; ++b) {
      for (int64_t column : columns) {
        std::complex<float>& here = spectrum[(b * rows + row) * width + column];
        std::complex<float>& there = spectrum[(b * rows + other) * width + column];
        here = 0.5f * (here + std::conj(there));
        there = std::conj(here);
      }
    }
  }
}

template <typename Transform>
ffi::Error Guarded(Transform transform) {
  try {
    Check(transform());
    return ffi::Error::Success();
  } catch (const Failure& failure) {
    return ffi::Error::Internal(std::string("MKL FFT: ") + DftiErrorMessage(failure.status));
  }
}

ffi::Error Forward(int64_t rank, int64_t threads, ffi::Buffer<ffi::F32> x, ffi::ResultBuffer<ffi::C64> out) {
  return Guarded([&] {
    const Layout layout(x.dimensions(), rank);
    return DftiComputeForward(Find(layout, threads), const_cast<float*>(x.typed_data()), out->untyped_data());
  });
}

// `used` is the input's own memory, given up by the program.
ffi::Error Backward(int64_t rank, int64_t threads, ffi::Buffer<ffi::C64> spectrum, ffi::ResultBuffer<ffi::F32> out,
                    ffi::ResultBuffer<ffi::C64> used) {
  if (used->untyped_data() != spectrum.untyped_data()) return ffi::Error::Internal("MKL FFT: the input is not given up");
  return Guarded([&] {
    const Layout layout(out->dimensions(), rank);
    Symmetrise(used->typed_data(), layout.real, layout.batch);
    return DftiComputeBackward(Find(layout, threads), used->untyped_data(), out->untyped_data());
  });
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(diffphys_mkl_r2c, Forward,
                              ffi::Ffi::Bind()
                                  .Attr<int64_t>("rank")
                                  .Attr<int64_t>("threads")
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Ret<ffi::Buffer<ffi::C64>>());

XLA_FFI_DEFINE_HANDLER_SYMBOL(diffphys_mkl_c2r, Backward,
                              ffi::Ffi::Bind()
                                  .Attr<int64_t>("rank")
                                  .Attr<int64_t>("threads")
                                  .Arg<ffi::Buffer<ffi::C64>>()
                                  .Ret<ffi::Buffer<ffi::F32>>()
                                  .Ret<ffi::Buffer<ffi::C64>>());
