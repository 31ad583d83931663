from align_keras.evaluation import metrics, report


def test_json_has_the_names_of_clip_benchmark():
    values = {"i2t_recall_at_1": 0.1, "t2i_recall_at_5": 0.2, "mean_recall": 0.3, "top_1": 0.4}
    assert metrics.json_names(values, "zeroshot_retrieval") == {
        "text_retrieval_recall@1": 0.1,
        "image_retrieval_recall@5": 0.2,
        "mean_recall": 0.3,
        "acc1": 0.4,
    }
    assert metrics.json_names({"knn_recall_at_10": 0.1}, "knn") == {"knn_recall@10": 0.1}
    values = {"i2t_recall_at_1": 0.1, "i2i_recall_at_5": 0.2}
    assert metrics.json_names(values, "crisscrossed") == {"i2t_recall@1": 0.1, "i2i_recall@5": 0.2}


def test_a_table_has_titles_chance_and_the_papers_figures():
    values = {"t2i_recall_at_1": 0.5, "i2t_median_rank": 1200.0, "mean_recall_de": 0.25}
    table = report.format_table("photos", values, {"t2i_recall_at_1": 0.1}, {"mean_recall_de": 0.3})
    lines = [line.split("  ") for line in table.splitlines() if line]
    cells = {line[0]: [cell.strip() for cell in line[1:] if cell.strip()] for line in lines[2:]}
    assert cells == {
        "text to image R@1": ["50.0%", "10.0%"],
        "image to text median rank": ["1,200"],
        "mean recall de": ["25.0%", "30.0%"],
    }
    assert report.format_table("photos", values, {}, {}).splitlines()[2].split() == ["model"]
