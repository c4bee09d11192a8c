"""What went over the pipe, kept in a file and shown to a person.

Owns both sides of a trace file: `recorder` writes it, `reading` reads it, `page` shows it. Refuses to
be imported unless a trace was asked for.
"""
