from aigc_cli.api import LoadedRun as LoadedRun
from aigc_cli.api import Scores as Scores
from aigc_cli.api import evaluate as evaluate
from aigc_cli.api import open_run as open_run
from aigc_cli.errors import AigcError as AigcError
from aigc_cli.errors import ConfigError as ConfigError
from aigc_cli.errors import DataError as DataError

__version__: str
