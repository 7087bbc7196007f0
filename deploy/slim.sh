#!/bin/sh
# slim.sh VENV: remove what the service never reads: the packages' tests, the symbol tables of the two libraries with
# large ones, AWS's descriptions of services other than S3 and sign-in, and all of SciPy except the sparse matrices,
# which LightGBM imports. The Dockerfile and the benchmarks call it.
set -eu
cd "$1"/lib/python3*/site-packages
find . -type d -name tests -prune -exec rm -r {} +
# Strip only these: libraries that auditwheel has rewritten cannot be loaded afterwards.
strip --strip-unneeded _polars_runtime*/*.so uvloop/*.so
find scipy -mindepth 1 -maxdepth 1 -type d ! -name _lib ! -name sparse -exec rm -r {} +
rm -rf scipy.libs scipy/sparse/linalg scipy/sparse/csgraph
if [ -d botocore ]; then
  find botocore/data -mindepth 1 -maxdepth 1 -type d ! -name s3 ! -name sts ! -name 'sso*' ! -name signin -exec rm -r {} +
fi
