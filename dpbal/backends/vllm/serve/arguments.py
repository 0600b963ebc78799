"""What stands after ``--``: arguments of ``vllm serve``, read by vLLM's own parser."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, NoReturn

from dpbal.backends.vllm.refusals import refuse_backend
from dpbal.errors import ConfigError

if TYPE_CHECKING:
    from argparse import Namespace

    from vllm.config import VllmConfig


def parse(words: list[str]) -> Namespace:
    """Read and check them as ``vllm serve`` does, and set up this process as it does.

    Raises:
        ConfigError: For a mistake in them, and for a server that dpbal cannot balance.
    """
    from vllm.entrypoints.cli.serve import ServeSubcommand
    from vllm.entrypoints.serve.utils.api_utils import cli_env_setup
    from vllm.logger import configure_logging_from_args
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    class Parser(FlexibleArgumentParser):
        def error(self, message: str) -> NoReturn:
            says = " ".join(message.split())
            raise ConfigError(f"vllm serve: {says}; dpbal-serve -- --help lists its arguments")

    cli_env_setup()  # type: ignore[no-untyped-call]
    parser = Parser(prog="dpbal-serve --")  # type: ignore[no-untyped-call]
    command = ServeSubcommand()
    command.subparser_init(parser.add_subparsers(dest="subparser"))
    try:
        args: Namespace = parser.parse_args(["serve", *words])
        configure_logging_from_args(args)
        command.validate(args)
    except Exception as error:  # also for what stands in a file that --config names
        _rephrase(error)
    if args.model_tag is not None:
        args.model = args.model_tag
    refuse_backend(args.data_parallel_backend)
    if args.data_parallel_multi_port_external_lb:
        raise ConfigError(
            "with --data-parallel-multi-port-external-lb each rank has a server of its own, and "
            "nobody chooses; leave it out"
        )
    if args.grpc:
        raise ConfigError("dpbal has not been tried behind vLLM's gRPC server; leave out --grpc")
    if args.headless and args.api_server_count:
        raise ConfigError("--headless starts no API server; leave out --api-server-count")
    if args.api_server_count is not None and args.api_server_count < 0:
        raise ConfigError(f"--api-server-count must be at least 1, got {args.api_server_count}")
    args.api_server_count = _api_servers(args)
    _check_parsers(args)
    return args


def engine_config(args: Namespace) -> VllmConfig:
    """The config of the engines that the server would start.

    Raises:
        ConfigError: If vLLM refuses the arguments, or cannot read the model.
    """
    from vllm import AsyncEngineArgs
    from vllm.usage.usage_lib import UsageContext

    try:
        engine_args = AsyncEngineArgs.from_cli_args(deepcopy(args))  # it changes what it is given
        engine_args._api_process_count = max(1, args.api_server_count or 0)
        made: VllmConfig = engine_args.create_engine_config(
            usage_context=UsageContext.OPENAI_API_SERVER, headless=args.headless
        )
    except Exception as error:  # vLLM raises what it likes, and asserts
        _rephrase(error)
    return made


def _api_servers(args: Namespace) -> int | None:
    """API servers that ``vllm serve`` would start on this host, by its own rules; None for none.

    vLLM decides it where it also starts them.
    """
    if args.headless:
        return args.api_server_count  # type: ignore[no-any-return]
    if args.api_server_count is not None:
        return args.api_server_count  # type: ignore[no-any-return]
    if args.data_parallel_external_lb or args.data_parallel_rank is not None:
        return 1
    if args.data_parallel_hybrid_lb or args.data_parallel_start_rank is not None:
        return args.data_parallel_size_local or 1
    ranks: int = args.data_parallel_size
    return ranks


def _check_parsers(args: Namespace) -> None:
    """Refuse parsers that do not exist, which vLLM does when it starts; plug-ins may add some.

    Raises:
        ConfigError: With those that do.
    """
    from vllm.entrypoints.launchers.launcher import validate_api_server_args

    if not args.tool_parser_plugin and not args.reasoning_parser_plugin:
        try:
            validate_api_server_args(args)  # type: ignore[no-untyped-call]
        except KeyError as error:
            raise ConfigError(f"vllm serve: {error.args[0]}") from None


def _rephrase(error: Exception) -> NoReturn:
    """Say in one line what vLLM says in several.

    Raises:
        ConfigError: Always.
    """
    if isinstance(error, ConfigError):
        raise error
    says = " ".join(str(error).split()) or type(error).__name__
    raise ConfigError(f"vllm serve: {says}") from None
