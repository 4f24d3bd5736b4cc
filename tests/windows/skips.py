"""Tests that cannot hold on Windows, or under Wine, and why: a plugin of pytest that skips them.

A name is that of a file, of a test, or of one case of it. ``tests/repo/test_windows.py`` looks whether there is such a
test.
"""

import pytest

SKIPS = {
    "it forks, and Windows knows no forks": [
        "core/test_budget.py::test_memory_that_children_share_counts_once",
        "core/test_budget.py::test_what_is_costly_to_weigh_does_not_hold_the_loop",
        "http/test_forks.py",
        "stdio/test_sockets.py::test_what_is_closed_in_a_fork_is_the_socket",
        "stdio/test_thread_pipes.py::test_who_escapes_with_the_pipes_keeps_nobody_waiting",
    ],
    "its full disk is a resource limit, which Windows does not have": [
        "core/test_jsonl.py::test_a_full_disk_is_an_error_of_that_write_alone",
        "core/test_jsonl.py::test_a_torn_line_that_cannot_be_ended_is_ended_later",
    ],
    "Windows knows neither modes of files nor /proc": [
        "core/test_jsonl.py::test_a_path_that_cannot_be_opened_is_refused_in_one_line",
        "core/test_jsonl.py::test_the_folder_is_made_and_only_the_owner_can_read_the_file",
    ],
    "it makes a named pipe": [
        "core/test_jsonl.py::test_a_pipe_whose_reader_stops_for_a_while_loses_what_is_counted",
        "core/test_jsonl.py::test_a_pipe_without_a_reader_is_refused_and_a_full_one_loses_lines_but_no_time",
        "core/test_jsonl.py::test_what_is_no_file_is_not_looked_at",
        "stdio/test_thread_pipes.py::test_threads_end_without_their_loop",
    ],
    "Wine looks for the end of a file, and then writes there: of two kernels one may overwrite the other": [
        "core/test_jsonl.py::test_kernels_share_a_log_and_are_told_apart",
    ],
    "it makes `os.open` fail, by which Windows opens no log": [
        "core/test_jsonl.py::test_a_file_that_another_kernel_has_made_meanwhile_is_not_overwritten",
        "core/test_jsonl.py::test_a_log_that_cannot_rotate_continues_in_its_file[open]",
        "core/test_jsonl.py::test_a_log_whose_torn_line_is_ended_may_be_full",
    ],
    "Wine counts no CPU time in a job object": [
        "core/test_budget.py::test_an_invocation_over_the_cpu_budget_ends_and_the_next_is_not_charged",
        "core/test_budget.py::test_an_invocation_is_charged_for_all_its_turns",
        "core/test_hosting.py::test_its_budget_is_kept",
    ],
    "its paths are spelled as on POSIX; `test_paths_of_windows_have_one_spelling_too` has those of Windows": [
        "core/test_capability.py::test_every_word_of_the_table_has_one_spelling[fs:",
        "core/test_capability.py::test_a_backslash_is_a_letter_on_posix",
        "core/test_capability.py::test_pairs_that_the_oracle_does_not_draw[fs:",
        "core/test_capability.py::test_the_one_spelling_permits_the_same_as_the_word",
        "core/test_delegation.py::test_a_module_hands_on_only_what_it_has",
        "core/test_delegation.py::test_a_path_of_what_a_module_mounts_is_taken_by_its_letters",
        "core/test_descriptor.py::test_paths_of_a_mapping_are_relative_to_the_working_folder",
        "core/test_descriptor.py::test_valid_fields_are_read_as_they_are_and_unknown_ones_are_kept",
        "core/test_errors.py::test_a_path_is_shown_whole_if_it_is_one_line_of_text",
        "core/test_gate.py::test_a_granted_capability_is_listed_once",
        "core/test_gate.py::test_an_answer_is_read[value9-",
        "core/test_gate.py::test_an_answer_is_read[value10-",
        "core/test_gate.py::test_only_system_calls_can_be_narrowed_while_a_module_runs",
        "core/test_gate.py::test_the_gate_decides_as_the_protocol_says",
        "core/test_gate.py::test_the_longest_lists_are_decided_in_no_time",
        "core/test_gate.py::test_the_paths_of_a_modules_answer_are_taken_by_their_letters",
        "core/test_hooks.py::test_an_allow_at_the_mount_can_narrow",
    ],
    "Wine follows symbolic links by itself, and shows none to Windows": [
        "core/test_capability.py::test_a_base_behind_a_link_is_resolved",
        "core/test_capability.py::test_a_link_that_leads_to_itself_is_a_path_like_another",
        "core/test_capability.py::test_a_path_can_be_taken_by_its_letters",
        "core/test_capability.py::test_a_path_covers_what_lies_below_it_once_links_and_dots_are_resolved",
        "core/test_capability.py::test_links_and_dots_are_resolved_as_the_system_does",
        "core/test_descriptor.py::test_a_descriptor_that_a_module_sent_looks_at_no_file",
        "core/test_descriptor.py::test_paths_are_relative_to_the_real_file",
    ],
    "its module has the command of a POSIX system, or its `fcntl`": [
        "stdio/test_noise.py",
        "stdio/test_stdio.py::test_a_connection_that_was_closed_takes_no_request",
        "stdio/test_stdio.py::test_a_module_that_ends_before_it_spoke_tells_its_story",
        "stdio/test_stdio.py::test_lines_that_wait_while_stdin_is_closed_are_dropped",
        "stdio/test_stdio.py::test_somebody_else_who_holds_the_pipes_keeps_nobody_waiting",
    ],
    "there are no sockets of Unix": ["core/test_check_transport.py::test_a_transport_from_outside_passes"],
    "a module inherits SYSTEMROOT, too, and what Wine adds": [
        "core/test_kernel.py::test_the_environment_of_the_kernel_is_not_the_modules",
        "stdio/test_fields.py::test_the_environment_is_constructed",
    ],
    "there is no /dev/full": ["core/test_check_sink.py::test_the_log_passes"],
    "its isolation is made of programs and descriptors of POSIX": [
        "core/test_host.py::test_a_module_is_planned_once_and_started_from_the_plan_each_time",
        "core/test_host.py::test_a_plan_that_does_not_end_is_given_up_at_the_deadline",
        "core/test_host.py::test_an_isolated_module_starts_with_the_command_of_the_isolation",
        "core/test_host.py::test_in_what_a_module_is_not_confined_is_unenforced_whatever_it_declares",
        "core/test_host.py::test_of_several_isolations_one_has_to_be_named",
        "core/test_host.py::test_the_only_isolation_is_tried_once_and_taken",
        "core/test_host.py::test_what_a_module_mounts_is_planned_only_after_policy_has_allowed_it",
        "core/test_host.py::test_what_an_isolation_cannot_enforce_refuses_the_module_unless_policy_alone_decides",
        "core/test_host.py::test_without_an_isolation_a_local_module_is_refused_with_the_remedies",
    ],
    "the system says it in words of its own": [
        "core/test_descriptor.py::test_a_folder_is_one_line",
        "core/test_descriptor.py::test_a_name_that_is_too_long_is_one_line",
        "core/test_descriptor.py::test_a_path_through_a_file_is_one_line",
        "core/test_mount.py::test_a_command_that_is_not_there_is_unreachable",
        "core/test_mount.py::test_the_error_of_a_module_that_does_not_start_has_the_cause",
    ],
    "what is killed ends with exit code 1: Windows knows no signals": [
        "stdio/test_stdio.py::test_a_reply_that_an_ended_module_left_in_its_pipe_is_heard",
        "stdio/test_stdio.py::test_large_chunks_that_an_ended_module_left_in_its_pipe_are_heard",
        "stdio/test_stdio.py::test_a_chunk_is_no_answer_to_a_cancel",
        "stdio/test_stdio.py::test_a_module_that_died_unnoticed_is_started_again_without_a_failure",
        "stdio/test_stdio.py::test_any_signal_has_a_name",
        "stdio/test_thread_pipes.py::test_that_nobody_reads_is_raised_once_it_is_known",
        "stdio/test_tolerances.py::test_after_the_end_of_stdin_come_sigterm_and_then_the_end",
    ],
    "it looks at /proc, process groups or pidfds; `test_grandchildren.py` holds on Windows too": [
        "stdio/test_stdio.py::test_a_reply_that_comes_as_its_caller_gives_up_is_nobodys",
        "stdio/test_stdio.py::test_where_pidfd_does_not_work_a_thread_waits",
        "stdio/test_stdio.py::test_without_pidfd_a_thread_waits",
        "stdio/test_orphans.py",
        "stdio/test_process_tree.py",
        "stdio/test_stdio.py::test_what_does_not_fit_into_the_pipe_waits_and_ends_with_the_process",
        "stdio/test_unreaped.py::test_children_that_nobody_waits_for_are_estimated",
        "stdio/test_unreaped.py::test_children_that_somebody_waits_for_are_not",
        "stdio/test_usage.py::test_a_tree_is_measured_whole",
        "stdio/test_usage.py::test_the_page_tables_of_a_process_count",
        "stdio/test_usage.py::test_threads_are_looked_at_for_what_they_have_started_and_too_many_are_not_measured",
        "stdio/test_usage.py::test_what_a_host_cannot_do_is_said",
    ],
    "it needs a distribution that is not installed there": [
        "http/test_httpx.py::test_a_proxy_carries_requests_one_connection_each",
        "http/test_httpx.py::test_a_proxy_that_refuses_is_unreachable_and_its_words_are_not_shown",
        "http/test_httpx.py::test_a_proxy_tunnels_tls_to_a_server_that_is_trusted",
        "http/test_httpx.py::test_the_trace_context_goes_through_a_proxy",
        "core/test_check_transport.py::test_grpc_passes",
        "core/test_plugins.py::test_the_error_of_an_unknown_sink_has_the_installed_names",
    ],
}
NAMES = {f"tests/{name}": reason for reason, names in SKIPS.items() for name in names}


def pytest_collection_modifyitems(items):
    for item in items:
        for name, reason in NAMES.items():
            if item.nodeid.startswith(name):
                item.add_marker(pytest.mark.skip(reason=reason))
