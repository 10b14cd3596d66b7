"""A stand-in for the module ray: its actors live in this process, and are lost when a test wants it."""

from types import ModuleType, SimpleNamespace


class RayError(Exception):
    pass


class RayTaskError(RayError):
    pass


class StandIn(ModuleType):
    """Has what the engine uses of ray.

    Args:
        resources: of the cluster.
        losses: what an actor is lost at: the numbers of shards, or "start"; each as often as it stands there.
        refuses: the error that init raises."""

    def __init__(self, resources: dict, losses=(), refuses: BaseException | None = None):
        super().__init__("ray")
        self.resources, self.losses, self.refuses = resources, list(losses), refuses
        self.exceptions = SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError)
        self.begun: list = []  # how init was called
        self.actors: list[dict] = []  # the options of each
        self.killed = self.shut_down = 0
        self.__spec__ = SimpleNamespace(name="ray")  # find_spec looks for it

    def init(self, **how):
        self.begun.append(how)
        if self.refuses:
            raise self.refuses

    def cluster_resources(self):
        return self.resources

    def shutdown(self):
        self.shut_down += 1

    def remote(self, kind):
        def make(**options):
            def start():
                self.actors.append(options)
                return _Handle(self, kind())

            return SimpleNamespace(remote=start)

        return SimpleNamespace(options=make)

    def wait(self, answers, timeout):
        return answers[-1:], answers[:-1]

    def get(self, answer):
        return answer()

    def kill(self, actor):
        self.killed += 1


class _Handle:
    def __init__(self, ray, actor):
        self._ray, self._actor = ray, actor

    def __getattr__(self, name):
        return SimpleNamespace(remote=lambda argument: self._answer(name, argument))

    def _answer(self, name, argument):
        def answer():
            key = name if name == "start" else argument.number
            if key in self._ray.losses:
                self._ray.losses.remove(key)
                raise RayError("the actor died")
            return getattr(self._actor, name)(argument)

        return answer
