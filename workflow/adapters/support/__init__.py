"""What an adapter does not have to write itself.

guard            open, closed, forked: the life of a handle
refusal          the one decision of a record store: is this change accepted, and if not, why
serial           records, events and due items as JSON, for stores that keep documents
log_streamer     EventStreamer over an EventLog
lease_scheduler  RoleScheduler over a LeaseStore
"""
