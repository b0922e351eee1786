"""What callers may want to tell apart. Every message says what was given, what is allowed and what to do.

RsvlError               anything the user can mend; the command line prints it and exits with status 1
├── OptionError         a bad option or an unknown name; exit status 2
├── EngineError         a model that captions cannot be reached or used at all
├── RemoteError         a server of data cannot be reached, or refuses
├── LoaderError         a process that loads batches is gone
└── DataError           a dataset, shard or record that cannot be used
    └── CorruptShard    bytes on disk differ from what the manifest or the index promises
"""


class RsvlError(Exception):
    pass


class OptionError(RsvlError, ValueError):
    pass


class EngineError(RsvlError):
    pass


class RemoteError(RsvlError):
    pass


class LoaderError(RsvlError):
    pass


class DataError(RsvlError):
    pass


class CorruptShard(DataError):
    pass
