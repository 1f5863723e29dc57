"""systemd's D-Bus interface by python-dbusmock's template, with what the template lacks: restarts, invocations, process
ids. Appends each effect to the file that is its argument."""

import os
import sys

import dbus
import dbus.mainloop.glib
from dbusmock import mockobject
from dbusmock.templates import systemd
from gi.repository import GLib

UNIT, SERVICE, MANAGER = systemd.UNIT_IFACE, systemd.BUS_PREFIX + ".Service", systemd.MAIN_IFACE
effects, invocations = sys.argv[1], iter(range(1000, 100000))


def change(manager, name, operation, state):
    """What StartUnit and its like do: a new invocation for what runs, the old one for what is stopped."""
    unit = mockobject.objects[manager.units[str(name)]]
    properties = {"ActiveState": state, "SubState": "running" if state == "active" else "dead"}
    if state == "active":
        number = next(invocations)
        properties["InvocationID"] = dbus.ByteArray(number.to_bytes(16, "big"))
        unit.props[SERVICE]["MainPID"] = dbus.UInt32(number)
    unit.props[UNIT].update(properties)
    with open(effects, "a") as file:
        file.write(f"{operation} {name}\n")
        file.flush()
        os.fsync(file.fileno())
    return dbus.ObjectPath(systemd.PATH_PREFIX + "/job/1")


def method(name, operation, state):
    """Replaces a method of the template."""

    def run(self, unit, _mode):
        if operation != "restart" and self.units and mockobject.objects[self.units[str(unit)]].props[UNIT]["ActiveState"] == state:
            return dbus.ObjectPath(systemd.PATH_PREFIX + "/job/1")
        return change(self, unit, operation, state)

    run.__name__ = name
    return dbus.service.method(MANAGER, in_signature="ss", out_signature="o")(run)


class Manager(mockobject.DBusMockObject):
    """The manager, with the methods of systemd that change units."""

    StartUnit = method("StartUnit", "start", "active")
    StopUnit = method("StopUnit", "stop", "inactive")
    RestartUnit = method("RestartUnit", "restart", "active")

    @dbus.service.method(MANAGER, in_signature="s", out_signature="o")
    def GetUnit(self, name):
        if str(name) not in self.units:
            raise dbus.exceptions.DBusException(f"Unit {name} not loaded.", name=systemd.BUS_PREFIX + ".NoSuchUnit")
        return dbus.ObjectPath(self.units[str(name)])


def add_unit(manager, name, state, required_by):
    path = f"{systemd.PATH_PREFIX}/unit/{systemd.escape_unit_name(name)}"
    manager.units[name] = path
    manager.AddObject(
        path,
        UNIT,
        {
            "Id": name,
            "LoadState": "loaded",
            "ActiveState": state,
            "SubState": "running" if state == "active" else "dead",
            "InvocationID": dbus.ByteArray(bytes(16)),
            "NeedDaemonReload": False,
            "FragmentPath": "/etc/systemd/system/" + name,
            "DropInPaths": dbus.Array([], signature="s"),
            "RequiredBy": dbus.Array(required_by, signature="s"),
            "Job": dbus.Struct((dbus.UInt32(0), dbus.ObjectPath("/"))),
        },
        [],
    )
    mockobject.objects[path].props[SERVICE] = {
        "MainPID": dbus.UInt32(1000),
        "NRestarts": dbus.UInt32(0),
        "Result": "success",
        "ExecStart": dbus.Array(
            [dbus.Struct(("/usr/sbin/" + name, dbus.Array(["-f"], signature="s"), False))], signature="(sasb)"
        ),
    }


dbus.mainloop.glib.DBusGMainLoop(set_as_default=True)
bus = dbus.bus.BusConnection(os.environ["DBUS_SYSTEM_BUS_ADDRESS"])
bus_name = dbus.service.BusName(systemd.BUS_NAME, bus)
# Without a log: the test reads one line of the standard output.
manager = Manager(bus_name, systemd.MAIN_OBJ, MANAGER, {"Version": "v252"}, os.devnull)
manager.units = {}
add_unit(manager, "web.service", "active", ["proxy.service"])
add_unit(manager, "idle.service", "inactive", [])
print("ready", flush=True)
GLib.MainLoop().run()
