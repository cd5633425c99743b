"""Rows, or parts of rows, that other rooms' tests hold."""

HELD_ELSEWHERE: dict[int, tuple[str, ...]] = {
    10: ("catalogue/test_limits.py::test_a_bomb_costs_neither_time_nor_memory",),
    19: ("scan/test_intensity.py::test_equation_1_never_wraps",),
    21: (
        "scan/test_upright.py::test_a_rod_stays_straight",
        "scan/test_upright.py::test_a_landmark_stays_within_half_a_voxel",
    ),
    30: ("catalogue/test_limits.py::test_large_volumes_take_the_stated_memory",),
    37: ("data/test_prepare_volume.py::test_abdomen_is_warned_about",),
    39: (
        "scan/test_codecs.py::test_a_missing_decoder_names_the_extra",
        "scan/test_codecs.py::test_jpeg_lossless",
    ),
    40: (
        "scan/test_codecs.py::test_a_decoder_that_never_ends_is_ended",
        "scan/test_codecs.py::test_a_decoder_that_wants_all_memory_is_refused_it",
    ),
    44: (
        "test_privacy.py::test_prepare_and_doctor_pass_nothing_on",
        "test_privacy.py::test_errors_and_what_caused_them",
        "test_privacy.py::test_a_report_names_nobody",
    ),
    45: (
        "show/test_patient_report.py::test_hostile_text_is_shown_not_obeyed",
        "show/test_patient_report.py::test_characters_that_reorder_or_control_text_are_made_visible",
        "show/test_patient_report.py::test_terminal_codes_are_not_passed_on",
        "show/test_score_tables.py::test_csv_texts_never_start_a_formula_and_survive_the_round_trip",
        "data/test_manifest.py::test_faulty_lines_of_jsonl",
    ),
    46: (
        "data/test_ct_rate.py::test_reports_with_bom_quotes_and_newlines",
        "data/test_ct_rate.py::test_bad_tables",
        "data/test_ct_rate.py::test_wrong_encoding_and_missing_file",
        "data/test_ct_rate.py::test_report_sections",
        "data/test_ct_rate.py::test_empty_findings_are_refused",
        "data/test_listing.py::test_empty_report_and_bad_cells",
        "data/test_manifest.py::test_faults_name_their_row",
    ),
    47: (
        "data/test_manifest.py::test_faults_name_their_row",
        "data/test_manifest.py::test_missing_files_and_texts_are_skipped_alone",
        "learn/pairs/test_heter.py::test_partners_are_eligible_and_relaxed_only_as_far_as_needed",
        "learn/pairs/test_build.py::test_training_pairs_stay_inside_the_training_split",
    ),
    48: (
        "data/test_prepared.py::test_pickled_arrays_are_never_opened",
        "data/test_prepared.py::test_missing_and_cut_frames",
        "learn/model/test_checkpoint.py::test_a_harmed_folder_is_refused_in_one_sentence",
    ),
    49: (
        "data/test_prepared.py::test_a_flipped_bit_is_noticed",
        "scan/test_stores.py::test_damage_is_noticed",
        "data/test_prepare_again.py::test_running_again_redoes_only_what_changed",
        "data/test_prepare_again.py::test_other_settings_need_another_folder",
        "data/test_prepare.py::test_shards_run_at_once_but_not_beside_a_whole_run",
        "data/test_prepare.py::test_unwritable_target_stops_with_one_sentence",
        "base/test_files.py::test_a_failed_write_leaves_the_old_file_and_no_other",
    ),
    50: (
        "data/test_prepare_again.py::test_killed_at_random_moments_it_ends_the_same",
        "learn/train/test_stage.py::test_an_interrupted_run_continues_exactly",
        "learn/train/test_callback.py::test_only_sealed_checkpoints_count_and_only_the_last_is_kept",
        "write/test_generate.py::test_an_interrupted_file_is_continued_to_the_same_end",
    ),
    51: (
        "learn/train/test_stage.py::test_a_loss_that_is_not_a_number_names_the_study_and_keeps_"
        "the_checkpoint",
        "learn/train/test_stage.py::test_a_full_device_is_told_with_its_studies_and_keeps_the_checkpoint",
        "learn/train/test_stage.py::test_a_capped_negative_costs_nothing_and_changes_nothing",
        "learn/pairs/test_dataset.py::test_an_over_long_sample_is_named",
        "text/test_prompt.py::test_both_tokenizers_refuse_reports_that_pose_as_chat",
    ),
    52: (
        "base/test_recipe.py::test_a_wrong_recipe_is_one_sentence",
        "base/test_recipe.py::test_both_suffixes_and_overrides_are_read",
        "cli/test_cli.py::test_a_misspelt_flag_is_not_guessed",
    ),
    54: (
        "catalogue/test_surroundings.py::test_locale_time_zone_and_umask_change_nothing",
        "data/test_prepare.py::test_processes_change_nothing",
    ),
}
"""By row: file below ``tests`` and function."""
